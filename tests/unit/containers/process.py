"""The ONNX container's own entry point, as a process on a free port of the loopback interface."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_containers.onnx import compilation

ROOT = Path(__file__).parents[3]
#: The server's code: the sources, or what test_compiled.py says.
CODE = Path(os.environ.get("SERVER_CODE", ROOT))
#: A program that prints the files of the modules that are to be compiled.
FILES = "import importlib\n" + "".join(
    f"print(importlib.import_module({module.removesuffix('.py').replace('/', '.')!r}).__file__)\n"
    for module in compilation.MODULES
)
SERVE = CODE / "inference_containers" / "onnx" / "serve"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server; `started` is when its process was, by `time.monotonic()`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.started = time.monotonic()

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A connection, as soon as the process accepts one."""
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=30)
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.005)

    def wait_until_ready(self) -> None:
        self.connect().close()
        while self.request("GET", "/ping").status != 200:
            assert time.monotonic() < self.started + 30, self.log.read_text()
            time.sleep(0.02)

    def wait_until_joined(self, times: int = 1) -> None:
        """Until so many siblings have, ever."""
        self.wait_until_ready()
        end = time.monotonic() + 30
        while len(self.records("process joined")) < times:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def records(self, message: str) -> list[dict[str, Any]]:
        """The log's records with this message; every line of the log is one JSON object."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        entries = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in entries if entry["message"] == message]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def serving(artifact: Path, sha256: str, log: Path, **environment: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(SERVE)],
            cwd=log.parent,
            env=inherited
            | {
                "MODEL_NAME": "doubler",
                "MODEL_SHA256": sha256,
                "MODEL_DIR": str(artifact),
                "SAGEMAKER_BIND_TO_PORT": str(port),
                "PYTHONPATH": str(CODE),
                "PROCESSES": "1",
            }
            | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process, port, log)
    finally:
        process.kill()
        process.wait()
