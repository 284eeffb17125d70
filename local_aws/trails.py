"""Trails deliver: events that a trail selects become lines of its log group and objects in its bucket.

Whether CloudTrail may write there is looked at when the trail is made (enforcement/trails.py).
docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-log-file-examples.html
"""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Callable

from ministack.core.responses import get_region, request_scope
from ministack.services import cloudtrail, cloudwatch_logs, s3

from local_aws import telemetry
from local_aws.wire import Json, Response

DELIVERY = 3.0
"""Seconds between two objects of a trail, at most with events in between; about five minutes on AWS."""

_UNRECORDED = {"PutLogEvents", "PutMetricData", "PutTraceSegments", "PutTelemetryRecords", "Publish"} | {
    f"{verb}Message{plural}" for verb in ("Send", "Receive", "Delete") for plural in ("", "Batch")
}
"""Calls that no trail of ours can select: data events of their own kinds, or not recorded at all."""

_waiting: dict[str, tuple[float, list[Json]]] = {}
"""ARN of a trail -> when the first event of its next object came, and those events."""


def install() -> None:
    """Let CreateTrail keep every setting: MiniStack's UpdateTrail does, and its CreateTrail some only."""
    known = cloudtrail._DISPATCH["CreateTrail"]

    def create_trail(request: Json) -> Response:
        created: Response = known(request)
        if created[0] == 200:
            cloudtrail._DISPATCH["UpdateTrail"](request)
        return created

    cloudtrail._DISPATCH["CreateTrail"] = create_trail


def deliver(event: Json, resources: list[Json]) -> None:
    """Give an event to every trail of the account that selects it.

    `resources` are those that the event is about, as LookupEvents tells them.
    """
    if event["eventName"] in _UNRECORDED:
        return
    data = _data_resource(event, resources)
    category = "Data" if data else "Management"
    record = {**event, "managementEvent": data is None, "eventCategory": category}
    if data:
        record["resources"] = [{"type": data[0], "ARN": data[1]}]
    fields = {
        "eventCategory": category,
        "eventName": event["eventName"],
        "readOnly": str(event["readOnly"]).lower(),
        "eventSource": event["eventSource"],
        **({"resources.type": data[0], "resources.ARN": data[1]} if data else {}),
    }
    account, region = event["recipientAccountId"], event["awsRegion"]
    for (owner, home, name), trail in cloudtrail._trails.all_items():
        reached = owner == account and (home == region or trail.get("IsMultiRegionTrail"))
        selectors = cloudtrail._event_selectors.get_scoped(owner, home, name)
        if reached and trail.get("IsLogging") and _selects(selectors, fields):
            with request_scope(account, home):
                _write_line(trail, record, account, region)
                _write_object(trail, record, account, region)


def _data_resource(event: Json, resources: list[Json]) -> tuple[str, str] | None:
    """Type and ARN of the object or function that a data event is about, None for a management event."""
    source, name = event["eventSource"], event["eventName"]
    names = [resource["ResourceName"] for resource in resources]
    if source == "s3.amazonaws.com" and "Object" in name and names:
        arn = names[0] if names[0].startswith("arn:") else "arn:aws:s3:::" + "/".join(names)
        return "AWS::S3::Object", arn
    if source == "lambda.amazonaws.com" and name in ("Invoke", "InvokeFunction") and names:
        prefix = f"arn:aws:lambda:{event['awsRegion']}:{event['recipientAccountId']}:function:"
        return "AWS::Lambda::Function", names[0] if names[0].startswith("arn:") else prefix + names[0]
    return None


def _selects(selectors: list[Json] | None, fields: dict[str, str]) -> bool:
    """Whether an advanced selector does; a trail without any has the management events."""
    if not selectors or "FieldSelectors" not in selectors[0]:
        return fields["eventCategory"] == "Management"
    return any(all(_holds(one, fields) for one in selector["FieldSelectors"]) for selector in selectors)


def _holds(selector: Json, fields: dict[str, str]) -> bool:
    value = fields.get(selector["Field"])
    if value is None:
        return False
    tests: dict[str, Callable[[str], bool]] = {
        "Equals": lambda wanted: value == wanted,
        "StartsWith": value.startswith,
        "EndsWith": value.endswith,
    }
    return all(
        any(test(wanted) for wanted in selector.get(name) or [])
        for name, test in tests.items()
        if selector.get(name)
    ) and not any(
        test(unwanted) for name, test in tests.items() for unwanted in selector.get(f"Not{name}") or []
    )


def _write_line(trail: Json, record: Json, account: str, region: str) -> None:
    group = str(trail.get("CloudWatchLogsLogGroupArn", "")).removesuffix(":*").rpartition(":")[2]
    if group in cloudwatch_logs._log_groups:
        stream = f"{account}_CloudTrail_{region}"
        telemetry.log(account, get_region(), group, stream, json.dumps(record))


def _write_object(trail: Json, record: Json, account: str, region: str) -> None:
    """Keep an event for the trail's next object, and write that if it is time."""
    now = time.time()
    began, records = _waiting.setdefault(trail["TrailARN"], (now, []))
    records.append(record)
    if now - began < DELIVERY:
        return
    _waiting.pop(trail["TrailARN"], None)
    at = time.gmtime(now)
    unique = uuid.uuid4().hex[:16]
    name = f"{account}_CloudTrail_{region}_{time.strftime('%Y%m%dT%H%MZ', at)}_{unique}.json.gz"
    folder = ["AWSLogs", account, "CloudTrail", region, time.strftime("%Y/%m/%d", at)]
    key = "/".join(part for part in (trail.get("S3KeyPrefix"), *folder, name) if part)
    body = gzip.compress(json.dumps({"Records": records}).encode())
    s3._put_object(trail["S3BucketName"], key, body, {"content-type": "application/json"})
