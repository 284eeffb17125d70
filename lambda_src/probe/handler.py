"""The synthetic client: does what clients do, from outside, and says how it went.

A run takes a token, asks whether the platform is ready, and asks each model its sample; an answer counts
only if it is as the model's `expected.json` says. A token is kept for three quarters of its life: each is
billed.

Environment: API_URL, SECRET_ID (the client's credentials in Secrets Manager: client_id, client_secret,
token_url, scope), MODELS (a JSON list), METRICS_NAMESPACE. The samples are beside this file, in
`samples/<model>/`.

Metrics, in the embedded metric format: ProbeFailures, the steps of the run that failed; ProbeLatencyMs, the
slowest step.
"""

import base64
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3
import embedded_metrics

from inference_runtime.expectations import check

SAMPLES = Path(__file__).parent / "samples"
TIMEOUT_SECONDS = 30
KEPT_SHARE = 0.75
LONGEST_ANSWER = 8 * 1024 * 1024


class StepFailed(Exception):
    """A step did not end as a client needs it to; the message says why, and holds no payload."""


@dataclass
class Token:
    """An access token, taken again when three quarters of its life are over."""

    value: str = ""
    until: float = 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self.until:
            held = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SECRET_ID"])
            credentials = json.loads(held["SecretString"])
            pair = f"{credentials['client_id']}:{credentials['client_secret']}"
            form = {"grant_type": "client_credentials", "scope": credentials["scope"]}
            answer = _call(
                credentials["token_url"],
                {
                    "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                urlencode(form).encode(),
            )
            self.value = answer["access_token"]
            self.until = time.monotonic() + KEPT_SHARE * float(answer["expires_in"])
        return self.value

    def forget(self) -> None:
        """Take a new one next time: this one was refused, or its secret was replaced."""
        self.until = 0.0


@dataclass
class Run:
    """The steps of a run, each logged as it ends."""

    latencies_ms: list[float] = field(default_factory=list)
    failures: int = 0

    def step(self, name: str, do: Callable[[], None]) -> None:
        started, reason = time.perf_counter(), ""
        try:
            do()
        except Exception as error:
            self.failures += 1
            reason = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
        latency_ms = round((time.perf_counter() - started) * 1000, 1)
        self.latencies_ms.append(latency_ms)
        record = {"step": name, "ok": not reason, "latency_ms": latency_ms, "reason": reason[:1000]}
        print(json.dumps({"message": "probe", **record}))


token = Token()


def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    """One run. A step that fails is counted and does not fail the run: the alarm is on the count."""
    run = Run()
    run.step("token", _take_token)
    run.step("ready", _expect_ready)
    for model in json.loads(os.environ["MODELS"]):
        run.step(model, partial(_ask, model))
    if run.failures:
        token.forget()
    embedded_metrics.publish(
        {"ProbeFailures": (run.failures, "Count"), "ProbeLatencyMs": (max(run.latencies_ms), "Milliseconds")}
    )
    return {"failures": run.failures}


def _take_token() -> None:
    token()


def _expect_ready() -> None:
    _call(f"{os.environ['API_URL']}/v2/health/ready", {"Authorization": f"Bearer {token()}"})


def _ask(model: str) -> None:
    folder = SAMPLES / model
    answer = _call(
        f"{os.environ['API_URL']}/v2/models/{model}/infer",
        {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"},
        (folder / "sample.json").read_bytes(),
    )
    wrong = check(json.loads((folder / "expected.json").read_text()), answer)
    if wrong:
        raise StepFailed(f"wrong: {'; '.join(wrong)}")


def _call(url: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
    """The JSON document that an address answers with; raises StepFailed for any status but 200."""
    if not url.startswith("https://"):
        raise StepFailed(f"{url} is not an https:// address")
    trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    request = Request(url, data=body, headers=headers)  # noqa: S310 (checked above)
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS, context=trusted) as response:  # noqa: S310
            document: dict[str, Any] = json.loads(response.read(LONGEST_ANSWER))
            return document
    except HTTPError as error:
        request_id = error.headers.get("x-request-id") or error.headers.get("x-amzn-requestid")
        raise StepFailed(f"status {error.code}, request {request_id}") from error
