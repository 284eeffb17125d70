"""What Lambda itself says of a function: metrics of every invocation, and its lines in JSON where wanted.

MiniStack counts only what is invoked through Lambda's own API, not what API Gateway and others invoke.
docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html

MiniStack writes the lines of the text format, START, END and REPORT, for every function. AWS writes JSON for
one that asks for it; that is where Logs Insights finds billed time and cold starts.
docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import json
import math
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import cloudwatch, cloudwatch_logs, lambda_svc

from local_aws.wire import Json

_START = re.compile(r"START RequestId: (\S+) Version: (\S+)")
_END = re.compile(r"END RequestId: \S+")
_REPORT = re.compile(
    r"REPORT RequestId: (\S+)\tDuration: \S+ ms\tBilled Duration: \S+ ms\t"
    r"Memory Size: (\d+) MB\tMax Memory Used: (\d+) MB"
)


@dataclass(frozen=True)
class _Invocation:
    duration_ms: float
    init_ms: float | None
    failed: bool


_writing: ContextVar[_Invocation | None] = ContextVar("writing", default=None)
"""The invocation whose lines are written now, in JSON."""

_init_ms: ContextVar[float | None] = ContextVar("init_ms", default=None)
"""How long the process of this thread's invocation took to start; None: it was there already."""


def install() -> None:
    _time_starts()
    _write_json()
    _count_every_invocation()


def _time_starts() -> None:
    worker = lambda_runtime.Worker
    known_spawn, known_invoke = worker._spawn, worker.invoke

    def spawn(self: Any) -> None:
        started = time.monotonic()
        known_spawn(self)
        _init_ms.set((time.monotonic() - started) * 1000)

    def invoke(self: Any, *arguments: Any, **options: Any) -> Any:
        _init_ms.set(None)
        return known_invoke(self, *arguments, **options)

    worker._spawn, worker.invoke = spawn, invoke


def _write_json() -> None:
    known_emit, known_append = lambda_svc._emit_lambda_logs, cloudwatch_logs._append_log_events

    def emit(
        function: Json, request_id: str, text: str, error: bool, duration_ms: int, **options: Any
    ) -> None:
        config = function.get("config") or function
        if (config.get("LoggingConfig") or {}).get("LogFormat") != "JSON":
            known_emit(function, request_id, text, error, duration_ms, **options)
            return
        init_ms = _init_ms.get()
        # As on AWS, the time to start is not part of the invocation's.
        invocation = _Invocation(max(duration_ms - (init_ms or 0), 0), init_ms, error)
        token = _writing.set(invocation)
        try:
            known_emit(function, request_id, text, error, duration_ms, **options)
        finally:
            _writing.reset(token)

    def append(stream: Json, events: list[Json]) -> None:
        invocation = _writing.get()
        if invocation is not None:
            # END has no counterpart at the level that is on by default.
            kept = [event for event in events if not _END.fullmatch(event["message"])]
            events = [{**event, "message": _in_json(event, invocation)} for event in kept]
        known_append(stream, events)

    lambda_svc._emit_lambda_logs, cloudwatch_logs._append_log_events = emit, append


def _count_every_invocation() -> None:
    known = lambda_svc._execute_function_dispatch

    def dispatch(function: Json, config: Json, event: Any, request_id: str, started: float) -> Any:
        in_flight = lambda_svc.executions_in_flight()[1].get(lambda_svc._inflight_key(config), 1)
        result = known(function, config, event, request_id, started)
        error = isinstance(result, dict) and bool(result.get("error"))
        # The time to start is not part of the duration.
        duration = max((time.time() - started) * 1000 - (_init_ms.get() or 0), 0)
        for name, value, unit in (
            ("Invocations", 1, "Count"),
            ("Errors", int(error), "Count"),
            ("Throttles", 0, "Count"),
            ("Duration", duration, "Milliseconds"),
            ("ConcurrentExecutions", in_flight, "Count"),
        ):
            cloudwatch.record_metric(
                "AWS/Lambda", name, value, unit, {"FunctionName": config["FunctionName"]}
            )
        return result

    def throttled(name: str, duration_ms: float, error: bool, throttle: bool) -> None:
        # Told twice of one that came through Lambda's API; a throttled call is no invocation.
        if throttle and not duration_ms:
            cloudwatch.record_metric("AWS/Lambda", "Throttles", 1, "Count", {"FunctionName": name})

    lambda_svc._execute_function_dispatch, lambda_svc._emit_lambda_metrics = dispatch, throttled


def _in_json(event: Json, invocation: _Invocation) -> str:
    line: str = event["message"]
    if found := _START.fullmatch(line):
        kind, record = "platform.start", {"requestId": found[1], "version": found[2]}
    elif found := _REPORT.fullmatch(line):
        init = invocation.init_ms or 0
        metrics = {
            "durationMs": round(invocation.duration_ms, 3),
            "billedDurationMs": math.ceil(invocation.duration_ms + init),
            "memorySizeMB": int(found[2]),
            "maxMemoryUsedMB": int(found[3]),
        }
        if init:
            metrics["initDurationMs"] = round(init, 3)
        status = "error" if invocation.failed else "success"
        kind, record = "platform.report", {"requestId": found[1], "metrics": metrics, "status": status}
    else:
        return line
    moment = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": moment.replace("+00:00", "Z"), "type": kind, "record": record})
