"""Captures: an answered request is found in the data bucket, by the id that its client was given."""

import json
import time
from typing import Any

import pytest

from app import ROOT
from catalog.names import Names
from tests.integration.platform.conftest import Platform

PATIENCE = 20  # seconds; a capture is written after the answer


def captured(platform: Platform, model: str, request_id: str) -> dict[str, Any]:
    """The capture of a request; SageMaker writes several into a file."""
    s3, deadline = platform.aws("s3"), time.monotonic() + PATIENCE
    environment = platform.deployed.environment
    assert environment.account is not None
    names = Names(environment.name)
    bucket = names.bucket("data", environment.account, environment.region)
    prefix = f"captures/{names.model(model)}/AllTraffic/"
    while time.monotonic() < deadline:
        for item in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", []):
            for line in s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().splitlines():
                record: dict[str, Any] = json.loads(line)
                if record["eventMetadata"].get("inferenceId") == request_id:
                    return record
        time.sleep(0.2)
    raise AssertionError(f"no capture of {request_id} under s3://{bucket}/{prefix}")


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
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError, match="no capture"):
        patch.setattr("tests.integration.platform.test_captures.PATIENCE", 0.5)
        captured(platform, "file-type", refused.headers["x-request-id"])
