"""Has a model's traffic looked at for drift, on its schedule, and says so where some was found.

It reads no payload: that is `drift`'s, which runs where payloads may be and can call nobody but S3. A rule
for each model starts it, so that one model that fails is one that is tried again. Environment:

    FUNCTION            the function that compares
    LIVE_PARAMETER      SSM parameter of a model's live version, with {model} in it
    VARIANT             the production variant in the captures' folders

Event: {"model", "endpoint", "hours", "settings"}, as the rule says it; `since` and `until` (ISO 8601) in
place of the last `hours` full hours ask for another window. The answer is what `drift` answered.

Once something has drifted, the event "Drift found" of source `inference.platform` says what, and where the
report is.
"""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config

SOURCE, DETAIL_TYPE = "inference.platform", "Drift found"
TOLD = ("model", "version", "sha256", "since", "until", "drifted", "report")
PATIENCE_SECONDS = 890


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """
    Raises:
        RuntimeError: the comparison failed; Lambda tries again, then it is a dead letter.
    """
    # The full hour: another attempt at the same event compares the same.
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    until = datetime.fromisoformat(event["until"]) if "until" in event else hour
    since = (
        datetime.fromisoformat(event["since"])
        if "since" in event
        else until - timedelta(hours=event["hours"])
    )
    name = os.environ["LIVE_PARAMETER"].replace("{model}", event["model"])
    live = boto3.client("ssm").get_parameter(Name=name)["Parameter"]
    found = _compare(
        {
            "model": event["model"],
            "endpoint": event["endpoint"],
            "variant": os.environ["VARIANT"],
            "sha256": live["Value"],
            "released": live["LastModifiedDate"].astimezone(UTC).isoformat(),
            "since": since.isoformat(),
            "until": until.isoformat(),
            "settings": event["settings"],
        }
    )
    if found["status"] == "drifted":
        _tell({name: found[name] for name in TOLD})
    return found


def _compare(request: dict[str, Any]) -> dict[str, Any]:
    # Not tried again by the client: the first attempt may still run.
    config = Config(read_timeout=PATIENCE_SECONDS, retries={"total_max_attempts": 1})
    invoked = boto3.client("lambda", config=config).invoke(
        FunctionName=os.environ["FUNCTION"], Payload=json.dumps(request).encode()
    )
    answer: dict[str, Any] = json.loads(invoked["Payload"].read())
    if "FunctionError" in invoked:
        raise RuntimeError(f"{request['model']}: {answer.get('errorType')}: {answer.get('errorMessage')}")
    return answer


def _tell(detail: dict[str, Any]) -> None:
    entry = {"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": json.dumps(detail)}
    answer = boto3.client("events").put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"EventBridge refused the event: {answer['Entries'][0].get('ErrorMessage')}")
