"""One instance of a container: a process of its entry point, its health, its log, its end.

Contract: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. The process listens on
SAGEMAKER_BIND_TO_PORT, finds its model in MODEL_DIR, answers GET /ping with 200 when ready and POST
/invocations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from local_aws import processes

REPOSITORY_PREFIX = "inference-"
CONTAINERS_VARIABLE = "LOCAL_AWS_CONTAINERS"
PING_INTERVAL = 0.1  # seconds between health checks while starting
PING_TIMEOUT = 2.0  # seconds, as SageMaker's
STOP_GRACE = 5.0  # seconds between SIGTERM and SIGKILL; SageMaker gives 30
LOG_TAIL = 20  # lines kept for a failure's reason

_ROOT = Path(__file__).resolve().parents[2]
_CHILD = Path(__file__).with_name("child.py")


class ContainerError(Exception):
    """A container did not start or did not become healthy; the message is what DescribeEndpoint says."""


def entry_point(image: str) -> Path:
    """The `serve` executable of an image URI; its repository must be called `inference-<folder>`.

    The folder is one of inference_containers/, or of LOCAL_AWS_CONTAINERS if that is set.
    Raises ContainerError if there is no such entry point.
    """
    repository = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    containers = Path(os.environ.get(CONTAINERS_VARIABLE) or _ROOT / "inference_containers")
    path = containers / repository.removeprefix(REPOSITORY_PREFIX) / "serve"
    if not repository.startswith(REPOSITORY_PREFIX) or not path.is_file():
        raise ContainerError(
            f"The image {image} cannot be run: its repository must be called {REPOSITORY_PREFIX}<folder> "
            f"and <folder>/serve must exist in {containers}."
        )
    return path


@dataclass
class Instance:
    """A running process. `requests` counts the invocations it is answering."""

    process: asyncio.subprocess.Process
    port: int
    reader: asyncio.Task[None]
    tail: deque[str]
    requests: int = 0
    stopping: bool = False
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
    measuring: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self.process.returncode is None and not self.stopping


async def start(
    serve: Path,
    *,
    model: Path,
    environment: dict[str, str],
    timeout: float,
    on_line: Callable[[str], None],
) -> Instance:
    """Start the entry point and wait until it is healthy.

    Raises ContainerError, with the container's last lines, if it exits or is not healthy in `timeout`
    seconds.
    """
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(_CHILD),
        str(os.getpid()),
        sys.executable,
        str(serve),
        cwd=model,
        env=_environment(environment, model, port),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A group of its own, so that what the container itself starts ends with it.
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=LOG_TAIL)
    reader = asyncio.create_task(_read(process, tail, on_line))
    # No proxy of the environment stands between SageMaker and its container; the limit is the model's own.
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        trust_env=False,
        timeout=None,  # noqa: S113 - every call sets its own deadline
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
    )
    instance = Instance(process, port, reader, tail, client=client)
    try:
        await _healthy(instance, timeout)
    except BaseException:
        await stop(instance)
        raise
    return instance


async def _healthy(instance: Instance, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if instance.process.returncode is not None:
            await instance.reader
            raise ContainerError(
                _last_words(instance, f"It exited with status {instance.process.returncode}")
            )
        with contextlib.suppress(httpx.HTTPError):
            if (await instance.client.get("/ping", timeout=PING_TIMEOUT)).status_code == httpx.codes.OK:
                return
        await asyncio.sleep(PING_INTERVAL)
    raise ContainerError(_last_words(instance, f"GET /ping did not answer 200 within {timeout:.0f} s"))


def _last_words(instance: Instance, what: str) -> str:
    return f"{what}; its last lines: " + " | ".join(instance.tail)


async def stop(instance: Instance) -> None:
    """End the process and all it started: SIGTERM, then SIGKILL."""
    instance.stopping = True
    if instance.measuring is not None:
        instance.measuring.cancel()
    process = instance.process
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_GRACE)
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
    _end_orphans(process.pid)
    await instance.client.aclose()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(instance.reader), 1)
    instance.reader.cancel()


async def utilization(instance: Instance) -> dict[str, float]:
    """CPUUtilization and MemoryUtilization of the process, in percent of a core and of this machine's memory.

    docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """
    ps = await asyncio.create_subprocess_exec(
        "ps", "-o", "%cpu=,%mem=", "-p", str(instance.process.pid), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await ps.communicate()
    return dict(zip(("CPUUtilization", "MemoryUtilization"), map(float, said.split()), strict=False))


def _end_orphans(group: int) -> None:
    """Kill what the process left behind; only what is marked, for its id may be another's by now."""
    for pid in processes.marked(Path(os.environ[processes.MARK_VARIABLE])):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == group:
                os.kill(pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _read(
    process: asyncio.subprocess.Process, tail: deque[str], on_line: Callable[[str], None]
) -> None:
    assert process.stdout is not None
    pending = b""
    # Not readline: it gives up on a line longer than its buffer, and a container may log one.
    while chunk := await process.stdout.read(65536):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            tail.append(text)
            on_line(text)
    if pending:
        tail.append(pending.decode(errors="replace"))
        on_line(tail[-1])


def _environment(given: dict[str, str], model: Path, port: int) -> dict[str, str]:
    """What a container sees: the Model's own variables, SageMaker's, and just enough to run here."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ
    }
    return {
        **kept,
        "PYTHONUNBUFFERED": "1",
        # Read-only model folders, as /opt/ml/model is: no bytecode is written beside a handler.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(_ROOT),
        **given,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "MODEL_DIR": str(model),
        processes.MARK_VARIABLE: os.environ[processes.MARK_VARIABLE],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
