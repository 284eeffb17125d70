"""Several processes for one model: what a client, an operator and the kernel see of them."""

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference_containers.onnx import board as boards
from inference_containers.onnx import hosting, processes
from inference_containers.onnx.board import Board
from inference_containers.onnx.front import Front, Limits
from inference_containers.onnx.processes import Siblings
from inference_containers.onnx.settings import Settings
from inference_runtime.batching import Batcher, Plan
from inference_runtime.metrics import Metrics
from tests.unit.containers.process import ROOT, Server, serving
from tests.unit.containers.test_front import Echo
from tests.unit.runtime import tiny

BODY = json.dumps(tiny.REQUEST).encode()
POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def two(folder: Path, **environment: str) -> Iterator[Server]:
    artifact, environment = tiny.doubler(folder / "model"), {"PROCESSES": "2"} | environment
    with serving(artifact.folder, artifact.manifest.sha256, folder / "log", **environment) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with two(tmp_path_factory.mktemp("processes")) as running:
        running.wait_until_joined()
        yield running


class Client:
    """A kept-alive connection."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._connection.connect()
        stack.callback(self._connection.close)
        self.inferred = 0
        #: The process that answered: its own request ids begin alike.
        self.process = ""

    def ask(self, method: str = "POST", path: str = "/invocations") -> bytes:
        self._connection.request(method, path, BODY if method == "POST" else None)
        response = self._connection.getresponse()
        assert response.status == 200
        content = response.read()
        if method == "POST":
            assert json.loads(content) == tiny.ANSWER
            self.inferred += 1
            self.process = (response.getheader("x-request-id") or "")[:24]
        return content


def _open(server: Server) -> int:
    """Connections that the server has not closed."""
    port, states = f":{server.port:04X}", ("01", "08")  # ESTABLISHED, CLOSE_WAIT
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(port) and line.split()[3] in states for line in lines)


def many(server: Server, stack: ExitStack) -> list[Client]:
    """Clients of both processes that will stay there, those of the first one first."""
    # Those of the test before count until they are known to have left.
    until(lambda: not _open(server))
    clients = [Client(server, stack)]
    clients[0].ask()
    first = clients[0].process
    clients += [Client(server, stack) for _ in range(39)]

    def settled() -> bool:
        before = [client.process for client in clients]
        for client in clients:
            client.ask()
        after = [client.process for client in clients]
        return after == before and len(set(after)) == 2 and max(Counter(after).values()) <= 21

    until(settled)
    return sorted(clients, key=lambda client: client.process != first)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def siblings(server: Server) -> list[int]:
    task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in task.read_text().split()]


def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_few_clients_stay_together_and_many_are_shared_evenly(server: Server) -> None:
    with ExitStack() as stack:
        clients = [Client(server, stack) for _ in range(16)]
        for client in clients:
            client.ask()
        assert len({client.process for client in clients}) == 1
        clients += [Client(server, stack) for _ in range(48)]
        for client in clients:
            client.ask()
        assert list(Counter(client.process for client in clients).values()) == [32, 32]


def test_clients_whose_rows_are_never_joined_need_not_be_many(tmp_path: Path) -> None:
    with two(tmp_path, MAX_BATCH_SIZE="1") as server, ExitStack() as stack:
        server.wait_until_joined()
        first = Client(server, stack)
        first.ask()
        second = Client(server, stack)
        second.ask()
        assert first.process != second.process


def test_every_process_tells_the_metrics_of_all(server: Server) -> None:
    def answered(client: Client) -> float:
        families = text_string_to_metric_families(client.ask("GET", "/metrics").decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "inference_phase_seconds_count" and sample.labels["phase"] == "total"
        )

    with ExitStack() as stack:
        clients = many(server, stack)
        for number, client in enumerate((clients[0], clients[-1])):
            before = answered(clients[0])
            # More than are held before they are put into the histograms.
            for _ in range(600 + number):
                client.ask()
            assert answered(clients[0]) == answered(clients[-1]) == before + 600 + number
        assert clients[0].process != clients[-1].process


def test_clients_that_were_there_first_are_shared_too_and_notice_nothing(tmp_path: Path) -> None:
    with two(tmp_path) as server, ExitStack() as stack:
        server.connect().close()
        clients = [Client(server, stack) for _ in range(40)]
        server.wait_until_ready()

        def shared() -> bool:
            for client in clients:
                client.ask()
            return len({client.process for client in clients}) == 2

        until(shared)


def test_a_process_that_is_killed_is_replaced_and_the_rest_goes_on(tmp_path: Path) -> None:
    with two(tmp_path) as server, ExitStack() as stack:
        server.wait_until_joined()
        clients = many(server, stack)
        [victim] = siblings(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.records("process ended"))
        assert server.records("process ended")[0]["status"] == -signal.SIGKILL
        clients[0].ask()
        with pytest.raises(ConnectionError):
            clients[-1].ask()
        assert server.request("GET", "/ping").status == 200

        server.wait_until_joined(2)
        again = [Client(server, stack) for _ in range(40)]
        for client in again:
            client.ask()
        assert len({client.process for client in clients + again}) == 3
        # What the one before has counted is not forgotten.
        answered = sum(client.inferred for client in clients + again)
        metrics = clients[0].ask("GET", "/metrics").decode()
        assert f'inference_phase_seconds_count{{model="doubler",phase="total"}} {answered}.0' in metrics


def test_none_outlives_the_first_however_that_ends(tmp_path: Path) -> None:
    with two(tmp_path) as server:
        server.wait_until_joined()
        [sibling] = siblings(server)
        server.process.kill()
        until(lambda: is_gone(sibling))


def test_one_that_is_stuck_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = "import time; time.sleep(1000)"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", stuck])
    started: list[subprocess.Popen[bytes]] = []

    class Process(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(processes.subprocess, "Popen", Process)

    async def run() -> None:
        siblings = Siblings(asyncio.get_running_loop(), Front(Echo(), Limits(1000)), Board(2))
        siblings.start(cast("Batcher", SimpleNamespace(plan=Plan(max_batch=64))))
        siblings.close()
        await siblings.ended(0)

    asyncio.run(run())
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_batches_of_the_first_have_one_core_while_another_has_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joins = """
import socket, sys, time
control = socket.socket(fileno=int(sys.argv[-1]))
control.recv(65536)
control.send(b"ready")
time.sleep(1000)
"""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", joins])
    batcher = SimpleNamespace(plan=Plan(max_batch=2), beside=False)

    async def run() -> list[bool]:
        board, told = Board(2), []
        front = Front(Echo(), Limits(1000))
        siblings = Siblings(asyncio.get_running_loop(), front, board)
        listener = socket.create_server(("127.0.0.1", 0))
        await front.start(listener)
        siblings.start(cast("Batcher", batcher))
        with ExitStack() as stack:
            stack.callback(siblings.close)

            async def becomes(beside: bool) -> None:
                async with asyncio.timeout(30):
                    while batcher.beside is not beside:
                        if beside:
                            stack.enter_context(socket.create_connection(listener.getsockname()))
                        await asyncio.sleep(0.05)
                told.append(batcher.beside)

            stack.enter_context(socket.create_connection(listener.getsockname()))
            await asyncio.sleep(0.1)
            told.append(batcher.beside)
            await becomes(True)
            # The other process has none any more.
            given = siblings._siblings[0].clients
            Board(2, 1, os.dup(board.descriptor)).ended[0] += given
            front.share = lambda client: False
            await becomes(False)
        await siblings.ended(0)
        return told

    assert asyncio.run(run()) == [False, True, False]


def test_a_stop_drains_all_of_them(tmp_path: Path) -> None:
    body = tiny.body()
    with two(tmp_path) as server, ExitStack() as stack:
        server.wait_until_joined()
        [sibling] = siblings(server)
        many(server, stack)
        halves = [stack.enter_context(server.connect()) for _ in range(4)]
        for half in halves:
            # Who is asked to go on has been read: only then has the request begun.
            half.sendall((POST % len(body)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert half.recv(65536).startswith(b"HTTP/1.1 100 ")
            half.sendall(body[:-1])
        server.process.send_signal(signal.SIGTERM)
        # Whoever has not begun is sent away, and nobody else is let in.
        until(lambda: _open(server) == len(halves))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        for half in halves:
            half.sendall(body[-1:])
            assert half.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(timeout=30) == 0
        assert is_gone(sibling)


def test_a_signal_to_the_whole_group_is_one_stop(tmp_path: Path) -> None:
    with two(tmp_path) as server, ExitStack() as stack:
        server.wait_until_joined()
        many(server, stack)
        half = [stack.enter_context(server.connect()) for _ in range(2)]
        for each in half:
            each.sendall((POST % 2)[:-2])
        [sibling] = siblings(server)
        os.kill(sibling, signal.SIGINT)
        os.kill(sibling, signal.SIGTERM)
        for each in half:
            each.sendall(b"\r\n{}")
            assert each.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert server.stop() == 0


def test_a_model_of_python_stays_in_one_process(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model", handler="def preprocess(inputs, state):\n    return inputs\n")
    with serving(artifact.folder, artifact.manifest.sha256, tmp_path / "log", PROCESSES="2") as server:
        server.wait_until_ready()
        server.request("POST", "/invocations", tiny.body())
        assert siblings(server) == []


@pytest.mark.parametrize(("copied_bytes", "shared"), [(1_000_000, True), (10, False)])
def test_a_model_that_is_too_large_for_the_memory_of_each_stays_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied_bytes: int, shared: bool
) -> None:
    monkeypatch.setattr(hosting, "_COPIED_BYTES", copied_bytes)
    artifact = tiny.doubler(tmp_path)

    async def loaded() -> Plan:
        loop = asyncio.get_running_loop()
        host = hosting.Host(
            loop, Settings(device="cpu"), Metrics(), {"doubler": lambda: artifact}, processes=2
        )
        done = asyncio.Event()
        host.start()
        host.models["doubler"].when_loaded(done.set)
        await done.wait()
        batcher = host.models["doubler"].batcher
        assert batcher
        batcher.close()
        return batcher.plan

    assert asyncio.run(loaded()).processes is shared


def test_long_answers_are_whole_in_every_process(server: Server) -> None:
    values = np.arange(60_000, dtype=np.float32).reshape(-1, 2)
    body = tiny.body(shape=list(values.shape), data=values.reshape(-1).tolist())
    for _ in range(2):
        reply = server.request("POST", "/invocations", body, {"accept-encoding": "gzip"})
        assert reply.headers["content-encoding"] == "gzip"
        answer = json.loads(gzip.decompress(reply.body))
        assert answer["outputs"][0]["data"] == (values * 2).reshape(-1).tolist()
        assert server.request("POST", "/invocations", body).json == answer


def test_all_together_keep_what_is_set_for_the_whole() -> None:
    whole = Settings(body_bytes=1000, pending_bytes=10_000, log_lines=100)
    part = whole.shared(4)
    assert 4 * part.pending_bytes <= whole.pending_bytes
    assert 4 * part.limits.queue <= whole.limits.queue
    assert 4 * part.log_lines <= whole.log_lines
    assert part.body_bytes == whole.body_bytes
    assert Settings(log_lines=0).shared(4).log_lines == 0
    # Each has room for a whole request.
    assert processes.most(Settings(body_bytes=1000, pending_bytes=3999, processes=8)) == 3
    assert processes.most(Settings(body_bytes=1000, pending_bytes=500, processes=8)) == 1


def test_what_only_loading_needed_is_given_back() -> None:
    script = """
import onnxruntime
from pathlib import Path
from inference_containers.onnx import memory
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile")).split()[1])
before = resident()
memory.trim()
after = resident()
print(before, after, onnxruntime.SessionOptions().graph_optimization_level)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split()[:2])
    assert after < before * 0.7


def test_each_process_knows_whether_the_others_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Board(3)
    second = Board(3, 1, os.dup(first.descriptor))
    # Whoever does not serve yet is not waited for, nor is this process itself.
    assert first.well(60)
    first.tell(healthy=False)
    assert first.well(60)
    assert not second.well(60)
    second.tell(healthy=False)
    assert not first.well(60)
    second.tell(healthy=True)
    assert first.well(60)
    later = time.perf_counter() + 70
    monkeypatch.setattr(boards, "perf_counter", lambda: later)
    assert not first.well(60)
    first.clear(1)
    assert first.well(60)
