"""The table of releases: what was released when, by whom and how it went; and one release of a model at a
time.

Partition key `model`, sort key `entry`:

    release#<epoch ms, 13 digits>#<version>   one release
    lock                                      the execution that may change the model now

A lock never outlives its execution: whoever finds that it has ended takes it over.
"""

import os
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import ClientError
from outcomes import NotYet

LOCK = "lock"
WAITING = "QUEUED"
LAST = 50
"""Releases of a model that are looked at, the last ones: more do not wait at once."""


@cache
def _table() -> Any:
    return boto3.resource("dynamodb").Table(os.environ["TABLE"])


def entry_of(version: str, queued_at: str) -> str:
    """The sort key of a release, from when its execution started (ISO 8601)."""
    moment = datetime.fromisoformat(queued_at.replace("Z", "+00:00"))
    return f"release#{int(moment.timestamp() * 1000):013d}#{version}"


def note(model: str, entry: str, **values: Any) -> None:
    """Set attributes of an entry, which is made if it is not there; of a release whose end is noted nothing
    more: a step of an execution that was ended may still be under way, and would have it go on.
    """
    names = {f"#{index}": name for index, name in enumerate(values)}
    given = {f":{index}": _stored(value) for index, value in enumerate(values.values())}
    changes = ", ".join(f"#{index} = :{index}" for index in range(len(values)))
    _if(
        _table().update_item,
        Key={"model": model, "entry": entry},
        UpdateExpression=f"SET {changes}",
        ConditionExpression="attribute_not_exists(ended)",
        ExpressionAttributeNames=names,
        ExpressionAttributeValues=given,
    )


def take_turn(model: str, entry: str, execution: str) -> dict[str, Any] | None:
    """Lock the model for this execution.

    Returns:
        The lock, if its last holder ended without letting go: `abandoned` is that release's entry.

    Raises:
        NotYet: another release of the model runs, or came earlier.
    """
    for earlier in _waiting(model):
        if earlier["entry"] < entry and _runs(earlier["execution"]):
            raise NotYet(f"{model}: the release of {earlier['version']} came first")
    lock = {"model": model, "entry": LOCK, "execution": execution, "release": entry}
    if _put(lock, "attribute_not_exists(entry)"):
        return None
    found = remembered(model)
    if found.get("execution") == execution:
        return found if "abandoned" in found else None
    if not found or _runs(found["execution"]):
        raise NotYet(f"{model}: another release runs")
    taken = {**found, **lock, "abandoned": found["release"]}
    if not _put(taken, "execution = :theirs", {":theirs": found["execution"]}):
        raise NotYet(f"{model}: another release was quicker")
    return taken


def let_go(model: str, execution: str) -> None:
    """Unlock the model, if this execution holds it."""
    _if(
        _table().delete_item,
        Key={"model": model, "entry": LOCK},
        ConditionExpression="execution = :mine",
        ExpressionAttributeValues={":mine": execution},
    )


def remember(model: str, **values: Any) -> None:
    """Keep in the lock what must be put back when the release is over, however it ends."""
    note(model, LOCK, **values)


def remembered(model: str) -> dict[str, Any]:
    """What the lock holds."""
    return _get(model, LOCK)


def releases(model: str) -> list[dict[str, Any]]:
    """The last releases of a model, the latest first."""
    found = _table().query(
        KeyConditionExpression="model = :model AND begins_with(entry, :releases)",
        ExpressionAttributeValues={":model": model, ":releases": "release#"},
        ScanIndexForward=False,
        ConsistentRead=True,
        Limit=LAST,
    )
    return list(found["Items"])


def known(model: str, entry: str) -> bool:
    """Whether a release was noted."""
    return bool(_get(model, entry))


def ended(model: str, entry: str) -> bool:
    """Whether a release's end was noted."""
    return "ended" in _get(model, entry)


def holds(model: str, execution: str) -> bool:
    """Whether an execution may change the model now."""
    return bool(remembered(model).get("execution") == execution)


def last_live(model: str) -> list[str]:
    """The artifacts of the last two releases that succeeded, and what they replaced: rollbacks go there."""
    succeeded = [release for release in releases(model) if release.get("status") == "LIVE"][:2]
    return list(
        dict.fromkeys(sha256 for release in succeeded for sha256 in (release["sha256"], release["previous"]))
    )[:3]


def _get(model: str, entry: str) -> dict[str, Any]:
    found = _table().get_item(Key={"model": model, "entry": entry}, ConsistentRead=True).get("Item")
    return dict(found or {})


def _put(item: dict[str, Any], condition: str, values: dict[str, str] | None = None) -> bool:
    """Write an item if a condition holds; whether it did."""
    given = {"ExpressionAttributeValues": values} if values else {}
    return _if(_table().put_item, Item=item, ConditionExpression=condition, **given)


def _if(write: Callable[..., object], **request: Any) -> bool:
    """Do a conditional write; whether its condition held."""
    try:
        write(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        return False
    return True


def _waiting(model: str) -> list[dict[str, Any]]:
    return [release for release in releases(model) if release.get("status") == WAITING]


def _runs(execution: str) -> bool:
    states = boto3.client("stepfunctions")
    try:
        return bool(states.describe_execution(executionArn=execution)["status"] == "RUNNING")
    except states.exceptions.ExecutionDoesNotExist:
        return False


def _stored(value: Any) -> Any:
    """A value as DynamoDB takes it: it knows no binary floating point."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, dict):
        return {name: _stored(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_stored(one) for one in value]
    return value
