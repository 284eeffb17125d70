"""The synthetic client: does what clients do, from outside, and says how it went.

A run takes a token, asks whether the platform is ready, and asks each model its sample; an answer counts
only if it is as the model's `expected.json` says.

Environment: API_URL, SECRET_ID (the client's credentials in Secrets Manager: client_id, client_secret,
token_url, scope), MODELS (a JSON list), METRICS_NAMESPACE. The samples are beside this file, in
`samples/<model>/`.

Metrics, in the embedded metric format: ProbeFailures, the steps of the run that failed; ProbeLatencyMs, the
slowest step.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import embedded_metrics
from api_client import CallFailed, Token, call

from inference_runtime.expectations import check

SAMPLES = Path(__file__).parent / "samples"


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
            reason = str(error) if isinstance(error, CallFailed) else f"{type(error).__name__}: {error}"
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
    call(f"{os.environ['API_URL']}/v2/health/ready", {"Authorization": f"Bearer {token()}"})


def _ask(model: str) -> None:
    folder = SAMPLES / model
    answer = call(
        f"{os.environ['API_URL']}/v2/models/{model}/infer",
        {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"},
        (folder / "sample.json").read_bytes(),
    )
    wrong = check(json.loads((folder / "expected.json").read_text()), answer)
    if wrong:
        raise CallFailed(f"wrong: {'; '.join(wrong)}")
