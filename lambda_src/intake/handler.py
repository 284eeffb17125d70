"""Starts releases: the manifest of an upload, or the approval of a registered package, becomes one execution.

EventBridge brings events at least once and in any order, so an execution's name says what it releases: the
same version with the same bytes is one release, however often it is told of. What an event says is never
believed where the present state can be asked.

    aws.s3              a manifest came to incoming/<model>/<version>/; it is the last file of an upload. Its
                        user metadata may be `who`, `why` (both percent-encoded) and `breaking` (true)
    aws.sagemaker       a package's approval changed; its model data lie in the models bucket
    inference.platform  a release that a package started has ended: the package is told how

Whatever fails is tried again, and then a dead letter.

Environment:
    ENVIRONMENT     the environment's name
    MACHINE         ARN of the state machine
    MODELS_BUCKET   where uploads come to
    LIVE_PARAMETER  SSM parameter of a model's live version, with {model} in it
    GROUP_PREFIX    what the groups of models begin with that name none of their own
    GROUPS          JSON: the others -> their model
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import boto3
from botocore.exceptions import ClientError

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
UPLOAD = re.compile(r"incoming/(?P<model>[^/]+)/(?P<version>[^/]+)/manifest\.json")
OVER = {
    "Release succeeded": "Released",
    "Release refused": "Refused",
    "Release rolled back": "RolledBack",
    "Release failed": "Failed",
}
"""How a release ended, as its event says -> the package's stage status."""

_GONE = ("404", "NoSuchKey", "ValidationException", "ResourceNotFound")

logger = logging.getLogger()
logger.setLevel(logging.INFO)


@dataclass(frozen=True)
class Found:
    """A manifest: the artifact's id, the version that it names, and the metadata of its upload."""

    sha256: str
    version: str | None
    metadata: Mapping[str, str]


def handler(event: dict[str, Any], context: Any) -> None:
    """Take one event. Raises ValueError for one of another kind."""
    kinds = {"aws.s3": uploaded, "aws.sagemaker": approved, "inference.platform": ended}
    if event["source"] not in kinds:
        raise ValueError(f"an event of {event['source']!r} means nothing here")
    kinds[event["source"]](event)


def uploaded(event: Mapping[str, Any]) -> None:
    """Release what an upload's manifest names."""
    # Version names have plus signs, which are no spaces here.
    key = unquote(event["detail"]["object"]["key"])
    parts = UPLOAD.fullmatch(key)
    if parts is None:
        logger.info("%s is a file of an upload, not its manifest", key)
        return
    found = _manifest(key)
    if found is None:
        logger.info("%s is gone: the upload was withdrawn", key)
        return
    release = {
        "model": parts["model"],
        "version": parts["version"],
        "sha256": found.sha256,
        "location": _uri(key.removesuffix(MANIFEST)),
        "source": "upload",
        "who": unquote(found.metadata.get("who", "")) or f"account {event['detail'].get('requester', '')}",
        "why": unquote(found.metadata.get("why", "")),
        "breaking": found.metadata.get("breaking", "").lower() == "true",
    }
    name = _name(release)
    if _start(name, release):
        return
    before = _execution(name)
    over = before["status"] != "RUNNING" and _live(parts["model"]) != found.sha256
    if over and datetime.fromisoformat(event["time"].replace("Z", "+00:00")) > before["startDate"]:
        # Somebody uploaded once more what was refused, or taken back since: another try for each time.
        sequencer = str(event["detail"]["object"].get("sequencer", event["time"]))
        _start(f"{name}-{hashlib.sha256(sequencer.encode()).hexdigest()[:8]}", release)
    else:
        logger.info("%s is %s: nothing to do", name, before["status"])


def approved(event: Mapping[str, Any]) -> None:
    """Release what an approved package names, once for each package."""
    arn = event["detail"]["ModelPackageArn"]
    package = _package(arn)
    if package is None or package.get("ModelApprovalStatus") != "Approved":
        logger.info("%s is not approved (any more)", arn)
        return
    model = _model_of(package["ModelPackageGroupName"])
    if model is None:
        logger.info("%s is of no model here", arn)
        return
    number, location = package["ModelPackageVersion"], _location(package)
    key = location.removeprefix(_uri(""))
    # What lies elsewhere cannot be read here, and the validator says so.
    found = _manifest(key + MANIFEST) if key != location and location.endswith("/") else None
    who = package.get("LastModifiedBy") or package.get("CreatedBy") or {}
    release = {
        "model": model,
        "version": (found and found.version) or f"package-{number}",
        "sha256": found.sha256 if found else "",
        "location": location,
        "source": "registry",
        "who": who.get("IamIdentity", {}).get("Arn") or who.get("UserProfileName") or "",
        "why": package.get("ApprovalDescription") or package.get("ModelPackageDescription") or "",
        "breaking": package.get("CustomerMetadataProperties", {}).get("breaking", "").lower() == "true",
        "package": arn,
    }
    _start(f"{_name(release)}-p{number}", release)


def ended(event: Mapping[str, Any]) -> None:
    """Tell a package how its release ended. Its approval stays: that was somebody's decision."""
    detail = event["detail"]
    execution = boto3.client("stepfunctions").describe_execution(executionArn=detail["execution"])
    package = json.loads(execution["input"]).get("package")
    if package is None:
        return
    said = f"{detail['version']} ({detail['sha256'][:12]})" if detail.get("sha256") else detail["version"]
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=package,
        ModelLifeCycle={
            "Stage": os.environ["ENVIRONMENT"],
            "StageStatus": OVER[event["detail-type"]],
            "StageDescription": f"{said} {detail.get('reason') or ''}".strip().replace("\n", " ")[:1024],
        },
    )


def _name(release: Mapping[str, Any]) -> str:
    """An execution's name: at most 80 letters, digits, hyphens and underscores, with what is added to it."""
    version = re.sub(r"[^A-Za-z0-9-]", "_", release["version"])[:20]
    return f"{release['model'][:32]}-{version}-{release['sha256'][:16] or 'unknown'}"


def _start(name: str, release: Mapping[str, Any]) -> bool:
    """Start an execution; False if there is, or was, one of that name."""
    states = boto3.client("stepfunctions")
    try:
        states.start_execution(stateMachineArn=os.environ["MACHINE"], name=name, input=json.dumps(release))
    except states.exceptions.ExecutionAlreadyExists:
        return False
    logger.info("started %s", name)
    return True


def _execution(name: str) -> Any:
    arn = os.environ["MACHINE"].replace(":stateMachine:", ":execution:") + f":{name}"
    return boto3.client("stepfunctions").describe_execution(executionArn=arn)


def _live(model: str) -> str | None:
    """The artifact that is live."""
    ssm = boto3.client("ssm")
    try:
        found = ssm.get_parameter(Name=os.environ["LIVE_PARAMETER"].format(model=model))
        return str(found["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


def _manifest(key: str) -> Found | None:
    """What a manifest says, as far as it can be read: it is the validator that refuses one."""
    try:
        answer = boto3.client("s3").get_object(Bucket=os.environ["MODELS_BUCKET"], Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise
    content = answer["Body"].read(MAX_MANIFEST_BYTES)
    try:
        version = json.loads(content)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    sha256 = hashlib.sha256(content).hexdigest()
    return Found(sha256, version if isinstance(version, str) else None, answer["Metadata"])


def _package(arn: str) -> Any:
    try:
        return boto3.client("sagemaker").describe_model_package(ModelPackageName=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise


def _model_of(group: str) -> str | None:
    groups: dict[str, str] = json.loads(os.environ["GROUPS"])
    if group in groups:
        return groups[group]
    model = group.removeprefix(os.environ["GROUP_PREFIX"])
    return model if model != group and model not in groups.values() else None


def _location(package: Mapping[str, Any]) -> str:
    """Where the first container's model data are said to be."""
    container = package.get("InferenceSpecification", {}).get("Containers", [{}])[0]
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    return str(source.get("S3Uri") or container.get("ModelDataUrl") or "nowhere")


def _uri(key: str) -> str:
    return f"s3://{os.environ['MODELS_BUCKET']}/{key}"
