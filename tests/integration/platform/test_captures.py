"""Captures: an answered request is found in the data bucket, by the id that its client was given."""

import json
import time
from typing import Any

import pytest

from app import ROOT
from catalog.names import Names
from tests.integration.platform.conftest import Platform

PATIENCE = 20  # seconds; a capture is written after the answer


def captures(platform: Platform, model: str) -> dict[str, dict[str, Any]]:
    """What the model has captured, by request id; SageMaker writes several records into a file."""
    environment = platform.deployed.environment
    assert environment.account is not None
    names = Names(environment.name)
    bucket = names.bucket("data", environment.account, environment.region)
    s3, found = platform.aws("s3"), {}
    for item in s3.list_objects_v2(Bucket=bucket, Prefix=f"captures/{names.model(model)}/AllTraffic/").get(
        "Contents", []
    ):
        for line in s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().splitlines():
            record: dict[str, Any] = json.loads(line)
            found[record["eventMetadata"]["inferenceId"]] = record
    return found


def captured(platform: Platform, model: str, request_id: str) -> dict[str, Any]:
    """The capture of a request, once it is written."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = captures(platform, model)
        if request_id in found:
            return found[request_id]
        time.sleep(0.2)
    raise AssertionError(f"no capture of {request_id} after {PATIENCE} s")


@pytest.mark.parametrize("model", ["file-type", "text-embedding"])
def test_a_capture_holds_what_was_asked_and_answered(platform: Platform, model: str) -> None:
    sample = (ROOT / "models" / model / "sample.json").read_bytes()
    answer = platform.infer(model, sample)
    record = captured(platform, model, answer.headers["x-request-id"])
    data = record["captureData"]
    assert json.loads(data["endpointInput"]["data"]) == json.loads(sample)
    assert json.loads(data["endpointOutput"]["data"]) == answer.json()
    assert json.loads(data["endpointOutput"]["data"])["model_version"] == "1.0.0"


def test_what_is_refused_is_not_captured(platform: Platform) -> None:
    refused = platform.infer("file-type", b"{")
    assert refused.status_code == 400
    answer = platform.infer("file-type", (ROOT / "models" / "file-type" / "sample.json").read_bytes())
    captured(platform, "file-type", answer.headers["x-request-id"])
    assert refused.headers["x-request-id"] not in captures(platform, "file-type")
