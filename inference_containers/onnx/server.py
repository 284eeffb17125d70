"""The GPU target: one model behind SageMaker's container contract and the Open Inference Protocol's routes.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html

    GET  /ping          200 once the model has answered its warm-up request; 503 before, or if it cannot
    POST /invocations   inference; with X-Amzn-SageMaker-Custom-Attributes `op=metadata`, the model's metadata
    /v2/...             the protocol's own routes

Environment:
    MODEL_NAME              the model's name in the catalog
    MODEL_SHA256            the artifact's id
    MODEL_DIR               the artifact's folder, /opt/ml/model by default
    MAX_BODY_BYTES          the largest request body, in bytes
    SAGEMAKER_BIND_TO_PORT  the port, 8080 by default
    BIND_HOST               the address, 127.0.0.1 by default; the image says 0.0.0.0
"""

import asyncio
import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from inference_runtime import logs
from inference_runtime.errors import Problem
from inference_runtime.service import DEFAULT_MAX_BODY_BYTES, Answer, Service

if TYPE_CHECKING:
    from inference_runtime.model import Model

#: SageMaker kills 30 s after SIGTERM.
DRAIN_SECONDS = 25
#: What SageMaker and API Gateway put into these headers, and nothing that could forge a log line.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

logger = logging.getLogger("access")


class Disconnected(Exception):
    """The client left before it had sent its request."""


class App:
    """The ASGI application. The event loop only moves bytes: parsing and inference run in threads."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="infer")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = _request_id(headers)
        method, path = self._route(scope["method"], scope["path"], headers)
        body = b""
        try:
            body = await self._read(headers, receive)
            call = (method, path, headers, body, request_id)
            if body:
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._service.handle, *call
                )
            else:
                # Without a body there is nothing to compute, and /ping must not queue behind inference.
                answer = self._service.handle(*call)
        except Problem as problem:
            answer = Answer.refusing(problem, request_id)
        except Disconnected:
            return
        await _send(answer, send)
        if scope["path"] != "/ping" or answer.status != 200:
            self._log(scope, request_id, answer, len(body), time.perf_counter() - started)

    def _route(self, method: str, path: str, headers: dict[str, str]) -> tuple[str, str]:
        """SageMaker's addresses as the protocol's."""
        if path == "/ping":
            return method, "/v2/health/ready"
        if path == "/invocations":
            model = f"/v2/models/{self._service.name}"
            if method == "POST" and headers.get(_ATTRIBUTES) == "op=metadata":
                return "GET", model
            return method, f"{model}/infer"
        return method, path

    async def _read(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The body, given up as soon as it is known to be too large."""
        self._service.check_size(int(headers.get("content-length", 0)))
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self._service.check_size(size)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _log(
        self, scope: dict[str, Any], request_id: str, answer: Answer, bytes_in: int, seconds: float
    ) -> None:
        logger.info(
            "request",
            extra={
                "request_id": request_id,
                "model": self._service.name,
                "version": self._service.version,
                "method": scope["method"],
                "path": scope["path"],
                "status": answer.status,
                "latency_ms": round(seconds * 1000, 3),
                "bytes_in": bytes_in,
                "bytes_out": len(answer.body),
            },
        )


def main(listener: socket) -> int:
    """Serve on `listener` until SIGTERM, then answer what has begun and return the exit status."""
    logs.configure()
    missing = [name for name in ("MODEL_NAME", "MODEL_SHA256") if not os.environ.get(name)]
    if missing:
        logging.error("the environment lacks %s", ", ".join(missing))
        return 2
    service = Service(
        os.environ["MODEL_NAME"], _load, int(os.environ.get("MAX_BODY_BYTES", DEFAULT_MAX_BODY_BYTES))
    )
    config = uvicorn.Config(
        App(service),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    # First everything that the server imports, so that it answers /ping while the model loads.
    config.load()
    threading.Thread(target=service.load, name="load", daemon=True).start()
    # uvicorn drains, then raises the signal again for the handler before it. A stop asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _load() -> "Model":
    # Imported here: ONNX Runtime takes longest, and the server answers meanwhile.
    from inference_runtime.manifest import verify
    from inference_runtime.model import Model

    folder = Path(os.environ.get("MODEL_DIR", "/opt/ml/model"))
    return Model(verify(folder, os.environ["MODEL_SHA256"]))


def _request_id(headers: dict[str, str]) -> str:
    """The gateway's id (a bare attribute, or the inference id), a direct client's own, or else a new one."""
    attribute = headers.get(_ATTRIBUTES, "")
    candidates = (
        attribute if "=" not in attribute else "",
        headers.get("x-amzn-sagemaker-inference-id", ""),
        headers.get("x-request-id", ""),
    )
    return next(filter(_REQUEST_ID.fullmatch, candidates), None) or str(uuid.uuid4())


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
