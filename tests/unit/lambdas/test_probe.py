"""The synthetic client: what it asks, what counts as served, and how often it pays for a token."""

import email.message
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request

import api_client
import pytest

from tests.unit.lambdas.function import imported

CREDENTIALS = {
    "client_id": "id",
    "client_secret": "secret",
    "token_url": "https://login.example.com/oauth2/token",
    "scope": "inference/invoke",
}


class World:
    """Secrets Manager, the token endpoint and the API; `answers` are by the end of the address."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {
            "token": {"access_token": "t0ken", "expires_in": 3600},
            "ready": {"ready": True},
            "infer": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [7]}]},
        }

    def client(self, service: str) -> "World":
        assert service == "secretsmanager"
        return self

    def get_secret_value(self, *, SecretId: str) -> dict[str, str]:
        assert SecretId == "inference/dev/clients/probe"
        return {"SecretString": json.dumps(CREDENTIALS)}

    def urlopen(self, request: Request, **options: Any) -> io.BytesIO:
        operation = request.full_url.rpartition("/")[2]
        self.asked.append(operation)
        answer = self.answers[operation]
        if isinstance(answer, int):
            headers = email.message.Message()
            headers["x-request-id"] = "request-9"
            raise HTTPError(request.full_url, answer, "refused", headers, None)
        return io.BytesIO(json.dumps(answer).encode())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world: World) -> ModuleType:
    for name, value in {
        "API_URL": "https://api.example.com/dev",
        "SECRET_ID": "inference/dev/clients/probe",
        "MODELS": '["tiny"]',
        "METRICS_NAMESPACE": "Inference/dev",
    }.items():
        monkeypatch.setenv(name, value)
    module = imported("probe")
    samples = tmp_path / "tiny"
    samples.mkdir()
    (samples / "sample.json").write_text('{"inputs": ["payload"]}')
    (samples / "expected.json").write_text('{"outputs": {"y": {"equals": [7]}}}')
    monkeypatch.setattr(module, "SAMPLES", tmp_path)
    monkeypatch.setattr(api_client.boto3, "client", world.client)
    monkeypatch.setattr(api_client, "urlopen", world.urlopen)
    return module


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_does_what_a_client_does_and_publishes_how_it_went(
    probe: ModuleType, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.handler({}, None) == {"failures": 0}
    assert world.asked == ["token", "ready", "infer"]
    *steps, metrics = lines(capsys.readouterr().out)
    assert [step["step"] for step in steps] == ["token", "ready", "tiny"]
    [directive] = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Inference/dev"
    assert {metric["Name"] for metric in directive["Metrics"]} == {"ProbeFailures", "ProbeLatencyMs"}
    assert metrics["ProbeFailures"] == 0


def test_a_token_is_taken_once_as_long_as_all_goes_well(probe: ModuleType, world: World) -> None:
    for _ in range(3):
        probe.handler({}, None)
    assert world.asked.count("token") == 1
    world.answers["ready"] = 401
    probe.handler({}, None)
    probe.handler({}, None)
    assert world.asked.count("token") == 2


def test_a_token_is_renewed_after_three_quarters_of_its_life(
    probe: ModuleType, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(api_client.time, "monotonic", lambda: now)
    probe.handler({}, None)
    now += 0.74 * 3600
    probe.handler({}, None)
    assert world.asked.count("token") == 1
    now += 0.02 * 3600
    probe.handler({}, None)
    assert world.asked.count("token") == 2


@pytest.mark.parametrize(
    ("operation", "answer", "step", "reason"),
    [
        ("infer", 503, "tiny", "status 503, request request-9"),
        ("infer", {"outputs": []}, "tiny", "wrong: y: not in the answer"),
        ("ready", 401, "ready", "status 401, request request-9"),
    ],
)
def test_a_step_that_fails_is_counted_and_named(
    probe: ModuleType,
    world: World,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    answer: object,
    step: str,
    reason: str,
) -> None:
    world.answers[operation] = answer
    assert probe.handler({}, None) == {"failures": 1}
    said = capsys.readouterr().out
    assert [line["reason"] for line in lines(said) if line.get("step") == step] == [reason]


def test_neither_secrets_nor_payloads_are_logged(
    probe: ModuleType, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.answers["infer"] = 500
    probe.handler({}, None)
    said = capsys.readouterr().out
    assert not [word for word in ("t0ken", "secret", "payload") if word in said]


def test_without_a_token_every_step_fails(probe: ModuleType, world: World) -> None:
    world.answers["token"] = 400
    assert probe.handler({}, None) == {"failures": 3}
