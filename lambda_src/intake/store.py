"""Keeps a validated artifact for good: copied to <model>/<sha256>/, and its version never other bytes again.

The step of a release after the validator, which has no right to write. The event is the release, in whose
`validation.validated` the validator's answer has the fingerprint of the objects that it looked at: no others
are copied. The answer is nothing. Every part may run again.

Raises Refused when the version was released with other bytes, or the upload has changed since.

Environment: MODELS_BUCKET, TABLE.
"""

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from inference_runtime.admission import fingerprint
from inference_runtime.manifest import FILE_NAME, ArtifactError, Manifest, parse

_CHANGED = ("412", "PreconditionFailed", "404", "NoSuchKey")

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class Refused(Exception):
    """The version may not be released; the message is for people."""


def handler(release: dict[str, Any], context: Any) -> None:
    model, version, sha256 = release["model"], release["version"], release["sha256"]
    s3: Any = boto3.client("s3")
    bucket = os.environ["MODELS_BUCKET"]
    previous = release.get("previous")
    if previous:
        # A deployment brings a model's first version, and claims nothing.
        _claim(model, _read(s3, bucket, f"{model}/{previous}", previous)[0].version, previous)
    _claim(model, version, sha256)
    target = f"{model}/{sha256}"
    source = str(release.get("location") or "").removeprefix(f"s3://{bucket}/").rstrip("/") or target
    if source == target or _etag(s3, bucket, f"{target}/{FILE_NAME}"):
        logger.info("%s is stored already", target)
        return
    _copy(s3, bucket, source, target, sha256, release["validation"]["validated"]["fingerprint"])


def _claim(model: str, version: str, sha256: str) -> None:
    """Note that a version is these bytes. Raises Refused if it is others."""
    table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
    key = {"model": model, "entry": f"version#{version}"}
    try:
        table.put_item(
            Item={**key, "sha256": sha256, "since": datetime.now(UTC).isoformat(timespec="milliseconds")},
            ConditionExpression="attribute_not_exists(entry)",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        known = table.get_item(Key=key, ConsistentRead=True)["Item"]["sha256"]
        if known != sha256:
            raise Refused(
                f"version {version} of {model} is {known[:12]}, and never changes: publish {sha256[:12]} as "
                "another version"
            ) from error


def _copy(s3: Any, bucket: str, source: str, target: str, sha256: str, seen: str) -> None:
    """Copy the very objects that were validated, the manifest last: where it is, everything is."""
    changed = Refused("the upload has changed since it was validated: publish it again")
    try:
        manifest, content, etag = _read(s3, bucket, source, sha256)
    except (ArtifactError, ClientError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] not in _CHANGED:
            raise
        raise changed from error
    etags: dict[str, str] = {FILE_NAME: etag}
    for name in manifest.files:
        etags[name] = _etag(s3, bucket, f"{source}/{name}") or ""
    if fingerprint(etags) != seen:
        raise changed
    for name in manifest.files:
        try:
            s3.copy(
                {"Bucket": bucket, "Key": f"{source}/{name}"},
                bucket,
                f"{target}/{name}",
                ExtraArgs={"CopySourceIfMatch": etags[name], "TaggingDirective": "REPLACE"},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _CHANGED:
                raise changed from error
            raise
        logger.info("copied %s/%s", target, name)
    s3.put_object(Bucket=bucket, Key=f"{target}/{FILE_NAME}", Body=content)


def _read(s3: Any, bucket: str, prefix: str, sha256: str) -> tuple[Manifest, bytes, str]:
    answer: Mapping[str, Any] = s3.get_object(Bucket=bucket, Key=f"{prefix}/{FILE_NAME}")
    content = answer["Body"].read()
    return parse(content, sha256), content, answer["ETag"]


def _etag(s3: Any, bucket: str, key: str) -> str | None:
    """An object's ETag; None if there is none."""
    try:
        return str(s3.head_object(Bucket=bucket, Key=key)["ETag"])
    except ClientError as error:
        if error.response["Error"]["Code"] in _CHANGED:
            return None
        raise
