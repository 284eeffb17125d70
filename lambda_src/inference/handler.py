"""The CPU target: one model answering API Gateway's REST proxy events, in process.

Environment:
    MODEL_NAME      the model's name in the catalog
    MODEL_URI       s3://<bucket>/<name>/<sha256>/, the artifact
    MODEL_SHA256    the artifact's id
    MAX_BODY_BYTES  the largest request body, in bytes
    ARTIFACT_CACHE  where artifacts are kept, /tmp/artifacts by default
    METRICS_NAMESPACE
    PHASE_METRICS   1: how long the phases of an inference take, and the load, are metrics too
    CAPTURE_URI     s3://<bucket>/<prefix>/<endpoint>/<variant>/, where captures go; without it none are made
    CAPTURE_SHARE   of the answered requests, 0 to 1
    CAPTURE_KEEP    `both` sides of an exchange, or `requests` or `answers` alone
    CAPTURE_REDACT  the tensors whose values are not captured, separated by commas

The model is loaded with the module, where Lambda gives a full CPU and SnapStart takes its snapshot. If that
fails the function still starts: it answers 503, and tries again on a later request.
"""

import base64
import logging
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedded_metrics import publish

from inference_runtime import logs, s3, tracing
from inference_runtime.artifacts import fetch
from inference_runtime.capture import BOTH, JSON, Exchange, Recorder
from inference_runtime.codecs import ACCEPT_ENCODING, CONTENT_ENCODING, names_binary
from inference_runtime.model import Model
from inference_runtime.service import DEFAULT_MAX_BODY_BYTES, Answer, Service

RETRY_SECONDS = 30
_PHASES = {
    "parse_ms": "ParseMs", "compute_ms": "ComputeMs", "serialize_ms": "SerializeMs", "load_ms": "LoadMs",
}  # fmt: skip

logger = logging.getLogger("inference")
logs.configure("inference", "inference_runtime")


def _load() -> Model:
    cache = Path(os.environ.get("ARTIFACT_CACHE", "/tmp/artifacts"))  # noqa: S108 (a Lambda's only writable folder)
    return Model(fetch(os.environ["MODEL_URI"], os.environ["MODEL_SHA256"], cache))


def _recorder() -> Recorder | None:
    uri = os.environ.get("CAPTURE_URI")
    if not uri:
        return None
    redact = [name for name in os.environ.get("CAPTURE_REDACT", "").split(",") if name]
    keep = os.environ.get("CAPTURE_KEEP", BOTH)
    return Recorder(uri, float(os.environ["CAPTURE_SHARE"]), redact, s3.upload, keep)


service = Service(
    os.environ["MODEL_NAME"], _load, int(os.environ.get("MAX_BODY_BYTES", DEFAULT_MAX_BODY_BYTES))
)
recorder = _recorder()

_begun = time.monotonic()
service.load()
_load_ms = (time.monotonic() - _begun) * 1000
_retry_at = time.monotonic() + RETRY_SECONDS
_cold_start = True
_phase_metrics = os.environ.get("PHASE_METRICS") == "1"


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one proxy event. Payloads are never logged."""
    exchange = None
    try:
        response, exchange = _handle(event)
        return response
    finally:
        if recorder:
            recorder.end(exchange)


def _handle(event: dict[str, Any]) -> tuple[dict[str, Any], Exchange | None]:
    """The response, and what may be captured of an inference that succeeded."""
    global _cold_start, _retry_at
    if not service.ready and time.monotonic() >= _retry_at:
        service.load()
        _retry_at = time.monotonic() + RETRY_SECONDS

    now, started = datetime.now(UTC), time.perf_counter()
    body = _body(event)
    answer = _answer(event, body)
    latency_ms = (time.perf_counter() - started) * 1000
    phases = zip(("parse_ms", "compute_ms", "serialize_ms"), answer.phases or (), strict=False)
    spent = {name: round(seconds * 1000, 3) for name, seconds in phases}
    if _cold_start:
        spent["load_ms"] = round(_load_ms, 3)

    request_id, ended = answer.headers["x-request-id"], time.time()
    found_by = {"model": service.name, "version": service.version or "none", "request_id": request_id}
    tracing.record("inference", ended - latency_ms / 1000, ended, answer.status, found_by)
    logger.info(
        "request",
        extra={
            "request_id": request_id,
            "model": service.name,
            "version": service.version,
            "method": event["httpMethod"],
            "path": event["path"],
            "status": answer.status,
            "latency_ms": round(latency_ms, 3),
            **spent,
            "bytes_in": len(body),
            "bytes_out": len(answer.body),
            "cold_start": _cold_start,
        },
    )
    values = {
        "Invocations": (1, "Count"),
        # A client's mistake is no error of the model's.
        "Errors": (int(answer.status >= 500), "Count"),
        "LatencyMs": (latency_ms, "Milliseconds"),
        "ColdStart": (int(_cold_start), "Count"),
    }
    if _phase_metrics:
        values |= {_PHASES[name]: (value, "Milliseconds") for name, value in spent.items()}
    # Alarms and dashboards find a model's metrics by this dimension alone.
    publish(values, Model=service.name)
    _cold_start = False
    response = {
        "statusCode": answer.status,
        "headers": answer.headers,
        "body": answer.body.decode() if answer.is_text else base64.b64encode(answer.body).decode(),
        "isBase64Encoded": not answer.is_text,
    }
    inferred = event["httpMethod"] == "POST" and answer.status == 200
    if not inferred:
        return response, None
    types = (_headers(event).get("content-type") or JSON, answer.headers["content-type"])
    return response, Exchange(request_id, body, answer.body, now, *types)


def _answer(event: dict[str, Any], body: bytes) -> Answer:
    headers = _headers(event)
    # A custom domain may put a base path before the protocol's own.
    path = re.sub(r"^.*?(?=/v2(/|$))", "", event["path"])
    request_id = event["requestContext"]["requestId"]
    # API Gateway answers in bytes only to who asks for them first, and compresses by itself.
    text_only = not names_binary(headers.get("accept"))
    for name in (CONTENT_ENCODING, ACCEPT_ENCODING):
        headers.pop(name, None)
    return service.handle(event["httpMethod"], path, headers, body, request_id, text_only=text_only)


def _headers(event: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in (event.get("headers") or {}).items()}


def _body(event: dict[str, Any]) -> bytes:
    body = event.get("body") or ""
    # A lone surrogate passes here and is refused as JSON later.
    return base64.b64decode(body) if event.get("isBase64Encoded") else body.encode(errors="surrogatepass")
