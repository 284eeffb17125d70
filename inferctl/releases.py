"""Releases of models: their history, following one, and going back to an earlier version."""

import getpass
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from catalog.names import Names
from inferctl.environment import Aws
from inferctl.errors import InferctlError

LIVE, ROLLBACK = "LIVE", "rollback"
POLL_SECONDS = 1.0
SHORTEST_SHA256 = 7
"""Digits by which an artifact may be named."""


@dataclass(frozen=True)
class Release:
    """One release as the history has it; times are ISO 8601, `ended` is empty while it goes on.

    `metrics` is what was measured while it was judged: requests, errors and p99_ms of the `new` and the `old`
    version, and how far their predictions are apart.
    """

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
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def progress(self) -> str:
        """Where it stands, in a line for people."""
        said = f"{self.model} {self.version}: {self.status}"
        if self.reason:
            return f"{said}: {self.reason}"
        measured = self.metrics
        sides = [
            f"{which} {measured['requests'][which]:.0f} requests, {measured['errors'][which]:.0f} failed, "
            f"p99 {measured['p99_ms'][which]:.0f} ms"
            for which in ("new", "old")
            if measured
        ]
        return f"{said} ({'; '.join(sides)})" if sides else said

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
    releases = history(aws, environment, model)
    if to is None:
        sha256 = _before_the_live_one(releases, model)
    else:
        sha256 = _chosen(aws, environment, releases, model, to)
    version = _version(aws, environment, model, sha256)
    if not version:
        raise InferctlError(f"The artifact {sha256[:12]} of {model} is no longer kept: publish it again.")
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
    """A release each time its progress changes, until it has ended."""
    yield from watch(aws, environment, {execution: model})


def watch(aws: Aws, environment: str, executions: Mapping[str, str]) -> Iterator[Release]:
    """Releases side by side, by their executions and models: each whenever its progress changes, until all
    have ended.
    """
    states, running = aws.client("stepfunctions"), dict(executions)
    shown: dict[str, str] = {}
    while running:
        for execution, model in list(running.items()):
            # Asked first: what is noted before its end is then read after it.
            over = states.describe_execution(executionArn=execution)["status"] != "RUNNING"
            found = [one for one in history(aws, environment, model) if one.execution == execution]
            if found and found[0].progress != shown.get(execution):
                shown[execution] = found[0].progress
                yield found[0]
            if over:
                del running[execution]
        if running:
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


def _before_the_live_one(releases: Sequence[Release], model: str) -> str:
    line = before(releases)
    if len(line) < 2:
        raise InferctlError(f"No version of {model} was live before the one that is.")
    return line[-2]


def _chosen(aws: Aws, environment: str, releases: Sequence[Release], model: str, to: str) -> str:
    """The artifact that was live and is called `to`: its version, or the first digits of its SHA-256."""
    was_live = [one for one in releases if one.status == LIVE]
    # The first live version was deployed, not released: only its manifest says what it is called.
    deployed = {one.previous for one in was_live} - {one.sha256 for one in was_live}
    names = {sha256: _version(aws, environment, model, sha256) for sha256 in sorted(deployed)}
    names |= {one.sha256: one.version for one in reversed(was_live)}
    chosen = [
        sha256
        for sha256, name in names.items()
        if name == to or (len(to) >= SHORTEST_SHA256 and sha256.startswith(to))
    ]
    if not chosen:
        versions = ", ".join(name for name in names.values() if name) or "none"
        raise InferctlError(f"{model} had no live version {to!r}; those that were live: {versions}.")
    return chosen[-1]


def _version(aws: Aws, environment: str, model: str, sha256: str) -> str:
    """What an artifact is called; empty if it is no longer kept."""
    account, region = _where(aws)
    bucket, s3 = Names(environment).bucket("models", account, region), aws.client("s3")
    try:
        found = s3.get_object(Bucket=bucket, Key=f"{model}/{sha256}/manifest.json")
    except s3.exceptions.NoSuchKey:
        return ""
    return str(json.load(found["Body"])["version"])


def _where(aws: Aws) -> tuple[str, str]:
    sts = aws.client("sts")
    return str(sts.get_caller_identity()["Account"]), str(sts.meta.region_name)


def _partition(region: str) -> str:
    return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(region.rpartition("-")[0].rpartition("-")[0], "aws")


def _release(model: str, item: dict[str, Any]) -> Release:
    read = TypeDeserializer()
    values = {name: _plain(read.deserialize(value)) for name, value in item.items()}
    names = [name for name in Release.__dataclass_fields__ if name not in ("model", "metrics")]
    texts = {name: str(values.get(name, "")) for name in names}
    return Release(model, **texts, metrics=values.get("metrics") or {})


def _plain(value: Any) -> Any:
    """A value of DynamoDB's as JSON has it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
