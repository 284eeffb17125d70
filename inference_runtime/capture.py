"""Captures: the share of requests and answers that a model keeps, as JSON Lines in S3.

The records and their places are those of SageMaker's data capture, so that captures of both targets are read
alike; on the GPU target SageMaker itself writes them.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture.html

    s3://<bucket>/<prefix>/<endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl
"""

import base64
import contextlib
import http.client
import logging
import os
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

logger = logging.getLogger(__name__)

#: Where a Lambda execution environment offers its APIs; absent outside Lambda.
LAMBDA_API = "AWS_LAMBDA_RUNTIME_API"
PAUSE_SECONDS = 0.1
JSON = "application/json"

BOTH, REQUESTS, ANSWERS = "both", "requests", "answers"
"""Which sides of an exchange are kept."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was answered with 200, and its answer."""

    request_id: str
    request: bytes
    answer: bytes
    time: datetime
    request_type: str = JSON
    answer_type: str = JSON


#: Writes an object: its bucket, key, bytes and media type.
Put = Callable[[str, str, bytes, str], object]


class Recorder:
    """Writes a share of the exchanges to S3, after their answers have left.

    Lambda freezes a function as soon as it has answered, and the time until then is the caller's. An internal
    extension, which is a thread that has registered with the Extensions API, keeps the environment running
    until it asks for the next event: the answer leaves at once, and the capture is written after it.
    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
    """

    def __init__(self, uri: str, share: float, redact: Collection[str], put: Put, keep: str = BOTH) -> None:
        """
        Args:
            uri: `s3://<bucket>/<prefix>/<endpoint>/<variant>/`.
            share: of the exchanges, 0 to 1.
            redact: names of the tensors whose values are not kept.
            put: writes one object.
            keep: BOTH sides, or one.
        """
        parts = urlsplit(uri)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._share, self._redact, self._put, self._keep = share, frozenset(redact), put, keep
        self._ended: queue.SimpleQueue[Exchange | None] = queue.SimpleQueue()
        api = os.environ.get(LAMBDA_API)
        # Registered here, in the init phase: Lambda takes no extension later.
        begun = _Extension(api).next if api else None
        threading.Thread(target=self._run, args=(begun,), name="capture", daemon=True).start()

    def end(self, exchange: Exchange | None) -> None:
        """An invocation ends, with an exchange that may be kept or without one. Call it once for each."""
        kept = exchange is not None and random.random() < self._share  # noqa: S311 (a sample)
        self._ended.put(exchange if kept else None)

    def _run(self, begun: Callable[[], None] | None) -> None:
        while True:
            if begun:
                begun()
            exchange = self._ended.get()
            if exchange is None:
                continue
            try:
                self._write(exchange)
            except Exception as error:
                # The caller has the answer; a lost capture is one row less in a sample.
                reason = {"request_id": exchange.request_id, "reason": str(error)}
                logger.warning("capture not written", extra=reason)

    def _write(self, exchange: Exchange) -> None:
        moment = exchange.time.astimezone(UTC)
        name = f"{moment:%Y/%m/%d/%H}/{moment:%M-%S}-{moment.microsecond // 1000:03}-{uuid.uuid4()}.jsonl"
        line = orjson.dumps(record(exchange, self._redact, self._keep), option=orjson.OPT_APPEND_NEWLINE)
        self._put(self._bucket, f"{self._prefix}/{name}", line, "application/jsonlines")


def record(exchange: Exchange, redact: Collection[str] = (), keep: str = BOTH) -> dict[str, Any]:
    """One line of a capture: SageMaker's record, version 0."""
    sides = {}
    if keep != ANSWERS:
        sides["endpointInput"] = _side("INPUT", exchange.request_type, exchange.request, redact)
    if keep != REQUESTS:
        sides["endpointOutput"] = _side("OUTPUT", exchange.answer_type, exchange.answer, redact)
    return {
        "captureData": sides,
        "eventMetadata": {
            "eventId": str(uuid.uuid4()),
            "inferenceId": exchange.request_id,
            "inferenceTime": exchange.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "eventVersion": "0",
    }


def _side(mode: str, media_type: str, body: bytes, redact: Collection[str]) -> dict[str, str]:
    side = {"observedContentType": media_type, "mode": mode}
    if media_type.partition(";")[0].strip().lower() == JSON:
        return side | {"data": (_redacted(body, redact) if redact else body).decode(), "encoding": "JSON"}
    # As SageMaker writes what it was not told to be text. Values cannot be told apart in it: none is kept
    # where some may not be.
    return side | {"data": "" if redact else base64.b64encode(body).decode(), "encoding": "BASE64"}


def _redacted(body: bytes, names: Collection[str]) -> bytes:
    """The document without the values of the tensors `names`: their shapes stay, and say how much it was."""
    document = orjson.loads(body)
    for tensor in [*document.get("inputs", ()), *document.get("outputs", ())]:
        if tensor["name"] in names and "data" in tensor:
            del tensor["data"]
            tensor["parameters"] = {"redacted": True}
    return orjson.dumps(document)


class _Extension:
    """An internal extension of a Lambda function: told of every invocation."""

    def __init__(self, api: str) -> None:
        self._api = api
        answer = self._call(
            "POST", "register", {"Lambda-Extension-Name": "capture"}, b'{"events":["INVOKE"]}'
        )
        self._id = answer.getheader("Lambda-Extension-Identifier", "")

    def next(self) -> None:
        """Wait until the next invocation begins; the function may be frozen meanwhile."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._call("GET", "event/next", {"Lambda-Extension-Identifier": self._id}, None)
                return
            # Restored from a snapshot, a connection is dead. Without a next event the function would hang.
            time.sleep(PAUSE_SECONDS)

    def _call(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._api)
        try:
            connection.request(method, f"/2020-01-01/extension/{path}", body, headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise http.client.HTTPException(f"{method} {path} was answered {answer.status}")
        return answer
