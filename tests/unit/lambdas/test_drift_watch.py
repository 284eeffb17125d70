"""The function that has drift looked for: in what is live, and it tells others only of what was found."""

import io
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.lambdas.function import imported

WATCH = imported("drift_watch")

RULE = {"model": "pets", "endpoint": "inference-test-pets", "hours": 6, "settings": {"psi": 0.2}}
RELEASED = datetime(2026, 3, 1, 12, tzinfo=UTC)
FOUND = {
    "model": "pets", "version": "2.0.0", "sha256": "f" * 64, "since": "s", "until": "u", "status": "steady",
    "drifted": [], "report": "s3://data/report.html", "rows": 300,
}  # fmt: skip


class Aws:
    """Stands for the three services that it calls."""

    def __init__(self, answer: dict[str, Any], failed: bool = False) -> None:
        self.answer, self.failed = answer, failed
        self.asked: list[dict[str, Any]] = []
        self.told: list[dict[str, Any]] = []

    def client(self, service: str, **options: Any) -> Any:
        return SimpleNamespace(
            get_parameter=self.get_parameter, invoke=self.invoke, put_events=self.put_events
        )

    def get_parameter(self, Name: str) -> Any:
        assert Name == "/inference/test/models/pets/live"
        return {"Parameter": {"Value": "f" * 64, "LastModifiedDate": RELEASED}}

    def invoke(self, FunctionName: str, Payload: bytes) -> Any:
        assert FunctionName == "inference-test-drift"
        self.asked.append(json.loads(Payload))
        error = {"FunctionError": "Unhandled"} if self.failed else {}
        return {"Payload": io.BytesIO(json.dumps(self.answer).encode()), **error}

    def put_events(self, Entries: list[dict[str, Any]]) -> Any:
        self.told += Entries
        return {"FailedEntryCount": 0, "Entries": [{}]}


def run(monkeypatch: pytest.MonkeyPatch, aws: Aws, **more: str) -> Any:
    monkeypatch.setattr(WATCH, "boto3", aws)
    monkeypatch.setenv("FUNCTION", "inference-test-drift")
    monkeypatch.setenv("LIVE_PARAMETER", "/inference/test/models/{model}/live")
    monkeypatch.setenv("VARIANT", "AllTraffic")
    return WATCH.handler(RULE | more, None)


def test_it_asks_about_the_live_version_and_the_last_full_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FOUND)
    assert run(monkeypatch, aws) == FOUND
    [asked] = aws.asked
    until = datetime.fromisoformat(asked.pop("until"))
    assert until - datetime.fromisoformat(asked.pop("since")) == timedelta(hours=6)
    assert (until.minute, until.second, until.tzinfo) == (0, 0, UTC)
    assert asked == {
        "model": "pets",
        "endpoint": "inference-test-pets",
        "variant": "AllTraffic",
        "sha256": "f" * 64,
        "released": RELEASED.isoformat(),
        "settings": {"psi": 0.2},
    }
    assert aws.told == []


def test_another_window_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FOUND)
    run(monkeypatch, aws, since="2026-03-02T00:00:00+00:00", until="2026-03-02T01:30:00+00:00")
    assert (aws.asked[0]["since"], aws.asked[0]["until"]) == (
        "2026-03-02T00:00:00+00:00",
        "2026-03-02T01:30:00+00:00",
    )


def test_drift_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    aws = Aws(FOUND | {"status": "drifted", "drifted": ["input size[1]: values"]})
    run(monkeypatch, aws)
    [event] = aws.told
    assert (event["Source"], event["DetailType"]) == ("inference.platform", "Drift found")
    detail = json.loads(event["Detail"])
    assert detail["drifted"] == ["input size[1]: values"]
    assert detail["report"] == "s3://data/report.html"


def test_a_comparison_that_failed_fails_the_function_so_that_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws = Aws({"errorType": "ArtifactError", "errorMessage": "manifest.json: not valid JSON"}, failed=True)
    with pytest.raises(RuntimeError, match=r"pets: ArtifactError: manifest\.json: not valid JSON"):
        run(monkeypatch, aws)
    assert aws.told == []
