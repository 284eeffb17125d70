"""Releases of models: their history, following one, and going back to an earlier version."""

import getpass
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from catalog.names import Names
from inferctl.environment import Aws
from inferctl.errors import InferctlError

LIVE, ROLLBACK = "LIVE", "rollback"
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Release:
    """One release as the history has it; times are ISO 8601, `ended` is empty while it goes on."""

    model: str
    version: str
    sha256: str
    status: str
    source: str
    who: str
    why: str
    started: str
    ended: str
    reason: str
    previous: str
    execution: str

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def history(aws: Aws, environment: str, model: str, *, last: int = 100) -> list[Release]:
    """The last releases of a model, the latest first."""
    found = aws.client("dynamodb").query(
        TableName=Names(environment).releases,
        KeyConditionExpression="model = :model AND begins_with(entry, :release)",
        ExpressionAttributeValues={":model": {"S": model}, ":release": {"S": "release#"}},
        ScanIndexForward=False,
        Limit=last,
    )
    return [_release(model, item) for item in found["Items"]]


def rollback(aws: Aws, environment: str, model: str, *, to: str | None, why: str) -> str:
    """Start going back to the version before the live one, or to the version `to`; the execution's ARN.

    Raises InferctlError if there is none such.
    """
    sha256 = _chosen(history(aws, environment, model), model, to)
    version = _version(aws, environment, model, sha256)
    names = Names(environment)
    account, region = _where(aws)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    answer = aws.client("stepfunctions").start_execution(
        stateMachineArn=f"arn:{_partition(region)}:states:{region}:{account}:stateMachine:{names.release_machine}",
        # Going back twice is two: the time is in the name.
        name=f"{model}-rollback-{sha256[:12]}-{moment}",
        input=json.dumps(
            {
                "model": model,
                "version": version,
                "sha256": sha256,
                "source": ROLLBACK,
                "who": getpass.getuser(),
                "why": why,
            }
        ),
    )
    return str(answer["executionArn"])


def follow(aws: Aws, environment: str, model: str, execution: str) -> Iterator[Release]:
    """A release each time its status changes, until it has ended."""
    states = aws.client("stepfunctions")
    status = ""
    while True:
        over = states.describe_execution(executionArn=execution)["status"] != "RUNNING"
        found = [one for one in history(aws, environment, model) if one.execution == execution]
        if found and found[0].status != status:
            status = found[0].status
            yield found[0]
        if over:
            return
        time.sleep(POLL_SECONDS)


def under_way(aws: Aws, environment: str, models: Sequence[str]) -> list[Release]:
    """The releases that have not ended."""
    return [one for model in models for one in history(aws, environment, model, last=10) if not one.ended]


def before(releases: Sequence[Release]) -> list[str]:
    """The artifacts that were live one after the other, the live one last, without those that a rollback
    left: from a history, the latest first.
    """
    line: list[str] = []
    for release in reversed([one for one in releases if one.status == LIVE]):
        line = line or [release.previous]
        if release.source == ROLLBACK and release.sha256 in line:
            line = line[: line.index(release.sha256) + 1]
        else:
            line = [*line, release.sha256]
    return line


def _chosen(releases: Sequence[Release], model: str, to: str | None) -> str:
    if to is None:
        line = before(releases)
        if len(line) < 2:
            raise InferctlError(f"No version of {model} was live before the one that is.")
        return line[-2]
    known = {one.version: one.sha256 for one in reversed(releases) if one.status == LIVE}
    known |= {sha256: sha256 for one in releases for sha256 in (one.sha256, one.previous) if sha256}
    chosen = [
        sha256 for name, sha256 in known.items() if name == to or (len(to) >= 7 and name.startswith(to))
    ]
    if not chosen:
        versions = ", ".join(name for name in known if len(name) < 64) or "none"
        raise InferctlError(f"{model} had no live version {to!r}; its releases were of {versions}.")
    return chosen[0]


def _version(aws: Aws, environment: str, model: str, sha256: str) -> str:
    account, region = _where(aws)
    bucket = Names(environment).bucket("models", account, region)
    found = aws.client("s3").get_object(Bucket=bucket, Key=f"{model}/{sha256}/manifest.json")
    return str(json.load(found["Body"])["version"])


def _where(aws: Aws) -> tuple[str, str]:
    sts = aws.client("sts")
    return str(sts.get_caller_identity()["Account"]), str(sts.meta.region_name)


def _partition(region: str) -> str:
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rpartition("-")[0].rpartition("-")[0], "aws")


def _release(model: str, item: dict[str, Any]) -> Release:
    values = {name: str(next(iter(value.values()))) for name, value in item.items()}
    names = [name for name in Release.__dataclass_fields__ if name != "model"]
    return Release(model, **{name: values.get(name, "") for name in names})
