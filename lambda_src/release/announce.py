"""Telling the world how a release goes: an event, a message to the alarm topic, a metric."""

import json
import os
from typing import Any

import boto3
import embedded_metrics

SOURCE = "inference.platform"
OUTCOMES = {
    "LIVE": "Release succeeded",
    "REFUSED": "Release refused",
    "ROLLED_BACK": "Release rolled back",
    "FAILED": "Release failed",
}
"""How a release ends -> the detail-type of its event."""

STARTED = "Release started"


def publish(what: str, release: dict[str, Any]) -> None:
    """An event on the account's default bus."""
    told = ("model", "version", "sha256", "previous", "source", "who", "why", "reason", "execution")
    boto3.client("events").put_events(
        Entries=[
            {
                "Source": SOURCE,
                "DetailType": what,
                "Detail": json.dumps(
                    {"environment": os.environ["ENVIRONMENT"]}
                    | {name: release[name] for name in told if release.get(name) is not None}
                ),
            }
        ]
    )


def end(status: str, release: dict[str, Any]) -> None:
    """The event of an outcome, a message to whoever hears of alarms, and what the alarm counts."""
    publish(OUTCOMES[status], release)
    version = f"{release['model']} {release['version']}"
    text = [f"{OUTCOMES[status]}: {version}", f"By {release.get('who') or 'nobody named'}"]
    text += [release[name] for name in ("why", "reason") if release.get(name)]
    boto3.client("sns").publish(
        TopicArn=os.environ["TOPIC"],
        Subject=f"{os.environ['ENVIRONMENT']}: {OUTCOMES[status]}: {version}"[:100],
        Message="\n".join(text),
    )
    embedded_metrics.publish({"ReleasesFailed": (int(status == "FAILED"), "Count")})


def said(error: dict[str, str]) -> str:
    """What a step that failed said: Step Functions hands on an error's name, and its message within JSON."""
    try:
        cause = json.loads(error.get("Cause") or "")
        message = str(cause.get("errorMessage") or "")
    except (ValueError, AttributeError):
        message = str(error.get("Cause") or "")
    return message or error["Error"]
