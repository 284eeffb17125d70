"""The servers that are measured: how each is installed, started, asked and read.

A peer is measured at several settings, and its best at each number of connections counts; ours has one.
Each runs in an environment of its own below build/bench, made when it is first wanted.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from benchmarks import models
from inferctl import serving
from inferctl.environment import ROOT
from inferctl.load import Request
from inference_runtime.manifest import TensorSpec

PEERS = ROOT / "benchmarks" / "peers"
HOME = ROOT / "build" / "bench"
#: A row of more bytes is sent as bytes: as JSON it would be the parser that is measured.
BYTES_FROM = 65_536
STARTING_SECONDS = 120

Arrays = Mapping[str, NDArray[Any]]
_JSON = {"content-type": "application/json"}
_BYTES = {"content-type": "application/octet-stream"}


class Unavailable(Exception):
    """A peer cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Workload:
    """A model, its signature, and the one request that is sent. `answer` is what the engine alone answers."""

    name: str
    model: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arrays: Arrays
    answer: Arrays

    @classmethod
    def of(cls, model: Path, axis: int) -> "Workload":
        """One row of random values, and its answer; axes that the model leaves open are `axis` long."""
        inputs, outputs = serving.signature(model)
        arrays = models.request(inputs, axis)
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        names = [spec.name for spec in outputs]
        return cls(
            model.stem,
            model,
            inputs,
            outputs,
            arrays,
            dict(zip(names, session.run(names, arrays), strict=True)),
        )

    @property
    def as_bytes(self) -> bool:
        """Whether the request is sent as bytes."""
        return sum(array.nbytes for array in self.arrays.values()) > BYTES_FROM


@dataclass(frozen=True)
class Running:
    """A server that answers: what to send to it, how to read its answer, and its processes' root."""

    request: Request
    read: Callable[[httpx.Response], Arrays]
    pid: int


@dataclass(frozen=True)
class Setting:
    """A server as it is configured. `connections` are those that it is measured with; empty: all of them."""

    server: str
    label: str
    environment: Mapping[str, str]
    connections: frozenset[int] = frozenset()
    quick: bool = True

    def suits(self, connections: int) -> bool:
        """Whether it is measured with so many connections."""
        return not self.connections or connections in self.connections


_ALONE = frozenset({1})
_MANY = frozenset({16, 64})

#: This server has one.
OWN = Setting("this server", "as it is", {})

SETTINGS = (
    Setting("FastAPI", "2 workers", {"WORKERS": "2", "INTRA": "1"}),
    Setting("FastAPI", "1 worker, all cores", {"WORKERS": "1"}, _ALONE, quick=False),
    Setting("mosec", "2 workers", {"WORKERS": "2", "INTRA": "1"}, _ALONE, quick=False),
    Setting("mosec", "1 worker, all cores", {"WORKERS": "1"}, _ALONE),
    Setting(
        "mosec",
        "2 workers, batch 8",
        {"WORKERS": "2", "INTRA": "1", "MAXB": "8", "DELAY_MS": "1"},
        _MANY,
        quick=False,
    ),
    Setting(
        "mosec", "2 workers, batch 16", {"WORKERS": "2", "INTRA": "1", "MAXB": "16", "DELAY_MS": "1"}, _MANY
    ),
    Setting(
        "mosec",
        "2 workers, batch 32",
        {"WORKERS": "2", "INTRA": "1", "MAXB": "32", "DELAY_MS": "1"},
        frozenset({64}),
        quick=False,
    ),
    Setting("Triton", "1 thread, batch 32", {"INTRA": "1", "MAXB": "32", "DELAY_MS": "0.2"}),
    Setting("Triton", "all cores, batch 16", {"MAXB": "16"}, quick=False),
)


@contextmanager
def running(setting: Setting, workload: Workload, log: IO[Any]) -> Iterator[Running]:
    """The server, answering `workload`.

    Raises:
        Unavailable: it cannot be installed, started or asked.
    """
    start = {"this server": _ours, "FastAPI": _fastapi, "mosec": _mosec, "Triton": _triton}[setting.server]
    with start(setting, workload, log) as found:
        yield found


@contextmanager
def _ours(setting: Setting, workload: Workload, log: IO[Any]) -> Iterator[Running]:
    # As `inferctl serve` starts it, with limits, metrics, checks and the access log on.
    with serving.serving(workload.model, log=log) as served:
        yield Running(_oip(served.infer_url, workload), _read_oip, served.process.pid)


@contextmanager
def _fastapi(setting: Setting, workload: Workload, log: IO[Any]) -> Iterator[Running]:
    python, port = _installed("fastapi"), _port()
    options = ["--port", str(port), "--workers", setting.environment["WORKERS"], "--no-access-log"]
    command = [str(python), "-m", "uvicorn", "server:app", "--log-level", "warning", *options]
    with _started(command, "fastapi", setting, workload, port, "/ping", log) as pid:
        path = "bytes" if workload.as_bytes else "invocations"
        yield Running(_native(f"http://127.0.0.1:{port}/{path}", workload), _reader(workload), pid)


@contextmanager
def _mosec(setting: Setting, workload: Workload, log: IO[Any]) -> Iterator[Running]:
    python, port = _installed("mosec"), _port()
    command = [str(python), "server.py", "--port", str(port), "--address", "127.0.0.1", "--timeout", "30000"]
    with _started(
        [*command, "--log-level", "warning"], "mosec", setting, workload, port, "/metrics", log
    ) as pid:
        yield Running(_native(f"http://127.0.0.1:{port}/inference", workload), _reader(workload), pid)


@contextmanager
def _triton(setting: Setting, workload: Workload, log: IO[Any]) -> Iterator[Running]:
    # nvidia-pytriton brings the server; its libpython is too old for some builds of Python, Debian's is not.
    python, port = _installed("triton", "/usr/bin/python3"), _port()
    [packages] = (python.parents[1] / "lib").glob("python*/site-packages")
    triton = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    folder = HOME / "triton-repository"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "models" / "m" / "1").mkdir(parents=True)
    backend = shutil.copytree(triton / "backends" / "python", folder / "backends" / "python")
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    shutil.copy(PEERS / "triton" / "model.py", folder / "models" / "m" / "1")
    (folder / "models" / "m" / "config.pbtxt").write_text(_triton_config(setting, workload))
    command = [
        str(triton / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}", f"--http-port={port}", "--http-address=127.0.0.1",
        "--http-thread-count=2", "--allow-grpc=false", "--allow-metrics=false", "--log-info=false",
        "--disable-auto-complete-config",
    ]  # fmt: skip
    libraries = f"{packages / 'nvidia_pytriton.libs'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    environment = {
        "PYTHONPATH": f"{packages}:{PEERS}",
        "LD_LIBRARY_PATH": libraries,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    with _started(command, "triton", setting, workload, port, "/v2/models/m/ready", log, environment) as pid:
        yield Running(_oip(f"http://127.0.0.1:{port}/v2/models/m/infer", workload), _read_oip, pid)


def _triton_config(setting: Setting, workload: Workload) -> str:
    def tensors(kind: str, specs: tuple[TensorSpec, ...], arrays: Arrays) -> str:
        return "\n".join(
            f'{kind} [{{ name: "{spec.name}" data_type: TYPE_{spec.datatype} '
            f"dims: [ {', '.join(map(str, arrays[spec.name].shape[1:]))} ] }}]"
            for spec in specs
        )

    delay = round(float(setting.environment.get("DELAY_MS", "0")) * 1000)
    return "\n".join(
        [
            'name: "m"',
            'backend: "python"',
            f"max_batch_size: {setting.environment['MAXB']}",
            tensors("input", workload.inputs, workload.arrays),
            tensors("output", workload.outputs, workload.answer),
            f"dynamic_batching {{ max_queue_delay_microseconds: {delay} }}",
            "instance_group [{ kind: KIND_CPU count: 1 }]",
        ]
    )


def _installed(peer: str, interpreter: str = sys.executable) -> Path:
    """The python of a peer's environment, made when it is not there."""
    folder = HOME / peer
    python, stamp = folder / "bin" / "python", folder / ".installed"
    requirements = PEERS / peer / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return python
    print(f"installing {peer} into {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
    uv = [sys.executable, "-m", "uv"]
    commands = (
        [*uv, "venv", "--quiet", "--clear", "--python", interpreter, str(folder)],
        [
            *uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "--require-hashes",
            "-r",
            str(requirements),
        ],
    )
    for command in commands:
        if subprocess.run(command, check=False).returncode != 0:
            raise Unavailable(f"{peer} cannot be installed: see above")
    stamp.write_text(requirements.read_text())
    return python


@contextmanager
def _started(
    command: list[str],
    peer: str,
    setting: Setting,
    workload: Workload,
    port: int,
    ready: str,
    log: IO[Any],
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a peer until left; all of its processes end with it."""
    variables = {
        "MODEL": str(workload.model),
        "PORT": str(port),
        "PEERS": str(PEERS),
        "PYTHONPATH": str(PEERS),
    }
    variables |= {"BYTES": "1"} if workload.as_bytes else {}
    process = subprocess.Popen(
        command,
        cwd=PEERS / peer,
        env=os.environ | variables | dict(environment or {}) | dict(setting.environment),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + STARTING_SECONDS
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}{ready}", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"{setting.server} does not start: see {log.name}")
            time.sleep(0.1)
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            # Its own session, so that this ends its workers too, and nothing else.
            os.killpg(process.pid, number)
            process.wait(timeout=10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _oip(url: str, workload: Workload) -> Request:
    """The Open Inference Protocol's request, JSON or with its binary extension."""
    inputs: list[dict[str, Any]] = []
    for spec in workload.inputs:
        array = workload.arrays[spec.name]
        tensor = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if workload.as_bytes:
            inputs.append(tensor | {"parameters": {"binary_data_size": array.nbytes}})
        else:
            inputs.append(tensor | {"data": _listed(array.reshape(-1))})
    if not workload.as_bytes:
        return Request(url, _JSON, json.dumps({"inputs": inputs}).encode())
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(workload.arrays[spec.name].tobytes() for spec in workload.inputs)
    return Request(url, _BYTES | {"inference-header-content-length": str(len(head))}, body)


def _listed(array: NDArray[Any]) -> Any:
    """Its values as lists, with the fewest digits that mean the same: as a client has them."""
    return orjson.loads(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))


def _read_oip(answer: httpx.Response) -> Arrays:
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    outputs = orjson.loads(answer.content[:length])["outputs"]
    found, start = {}, length
    for output in outputs:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = np.array(output["data"], np.float64)
        else:
            dtype = (
                f"f{int(output['datatype'][2:]) // 8}"
                if output["datatype"].startswith("FP")
                else (output["datatype"].lower())
            )
            found[output["name"]] = np.frombuffer(answer.content[start : start + size], dtype)
            start += size
    return found


def _native(url: str, workload: Workload) -> Request:
    """What one would send to a server of one's own: nested lists, or the values' bytes."""
    if workload.as_bytes:
        [array] = workload.arrays.values()
        return Request(url, _BYTES, array.tobytes())
    lists = {name: _listed(array) for name, array in workload.arrays.items()}
    return Request(url, _JSON, json.dumps({"inputs": lists}).encode())


def _reader(workload: Workload) -> Callable[[httpx.Response], Arrays]:
    def read(answer: httpx.Response) -> Arrays:
        if not workload.as_bytes:
            return {
                name: np.array(values, np.float64) for name, values in orjson.loads(answer.content).items()
            }
        [(name, array)] = workload.answer.items()
        return {name: np.frombuffer(answer.content, array.dtype)}

    return read
