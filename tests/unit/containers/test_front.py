"""The HTTP front by itself: requests in, their answers back in order, and nothing unbounded."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from inference_containers.onnx.front import Connection, Exchange, Front, Limits
from inference_runtime.errors import Problem

LIMITS = Limits(body_bytes=1000, pending_bytes=5000)
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Echo:
    """Answers with the body, or with the target where there is none; /hold waits to be released."""

    def __init__(self) -> None:
        self.held: list[Exchange] = []
        self.seen: list[tuple[bytes, bytes, dict[str, str], bytes]] = []

    def handle(self, exchange: Exchange) -> None:
        head = exchange.head
        self.seen.append((head.method, head.target, head.headers, exchange.body))
        if head.target.startswith(b"/hold"):
            self.held.append(exchange)
        else:
            exchange.respond(200, b"", exchange.body or head.target)

    def refuse(self, exchange: Exchange, problem: Problem) -> None:
        exchange.respond(problem.status, b"", problem.slug.encode())

    def tick(self, now: float) -> None:
        pass


class Running:
    """A front on a port of the loopback interface, its loop in a thread."""

    def __init__(self, limits: Limits) -> None:
        self.echo = Echo()
        self.front = Front(self.echo, limits)
        self.loop = uvloop.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.front.start(listener), self.loop).result(10)

    def connect(self, *data: bytes) -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        for part in data:
            client.sendall(part)
        return client

    def call(self, function: Callable[[], Any]) -> Any:
        """On the loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 10
        while not self.call(condition):
            assert time.monotonic() < end
            time.sleep(0.002)

    def drain(self, seconds: float = 5) -> None:
        asyncio.run_coroutine_threadsafe(self.front.drain(seconds), self.loop).result(10)


@contextlib.contextmanager
def running(limits: Limits = LIMITS) -> Iterator[Running]:
    front = Running(limits)
    try:
        yield front
    finally:
        front.drain(0)
        front.loop.call_soon_threadsafe(front.loop.stop)
        front.thread.join()


@pytest.fixture(scope="module")
def front() -> Iterator[Running]:
    with running() as one:
        yield one


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    while part := client.recv(65536):
        received += part
    return received


def until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        part = client.recv(65536)
        assert part, received
        received += part
    return received


def test_a_connection_is_kept_for_the_next_request(front: Running) -> None:
    with front.connect() as client:
        for body in (b"one", b"two"):
            client.sendall(POST % (3, body))
            answer = until(client, body)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\ncontent-length: 3\r\n" in answer
            assert b"connection:" not in answer


def test_pipelined_requests_are_answered_in_their_order_whatever_finishes_first(front: Running) -> None:
    with front.connect(GET.replace(b"/", b"/hold", 1) + POST % (5, b"after") + POST % (4, b"last")) as client:
        front.until(lambda: front.echo.held)
        held = front.echo.held.pop()
        front.call(lambda: held.respond(200, b"", b"first"))
        answer = until(client, b"last")
    assert answer.index(b"first") < answer.index(b"after") < answer.index(b"last")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_ends(front: Running, request_: bytes) -> None:
    with front.connect(request_) as client:
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"malformed-request")


def test_what_follows_a_refusal_is_not_a_request(front: Running) -> None:
    before = len(front.echo.seen)
    with front.connect(b"nonsense\r\n\r\n" + GET) as client:
        assert everything(client).count(b"HTTP/1.1") == 1
    assert len(front.echo.seen) == before


@pytest.mark.parametrize(
    ("version", "header", "closes"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Connection: close\r\n", True),
        (b"1.0", b"", True),
        (b"1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_a_connection_lives_as_long_as_its_client_says(
    front: Running, version: bytes, header: bytes, closes: bool
) -> None:
    with front.connect(b"GET /here HTTP/%s\r\nHost: x\r\n%s\r\n" % (version, header)) as client:
        if closes:
            assert everything(client).endswith(b"/here")
        else:
            until(client, b"/here")
            client.sendall(GET)
            until(client, b"/")


def test_a_head_request_is_answered_without_a_body(front: Running) -> None:
    with front.connect(b"HEAD /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as client:
        answer = everything(client)
    assert b"content-length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_an_offer_to_upgrade_is_answered_in_http_1(front: Running) -> None:
    upgrade = b"GET /here HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with front.connect(upgrade + GET) as client:
        assert until(client, b"\r\n\r\n/").count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_asks_first_is_told_to_go_on(front: Running) -> None:
    head, _, body = (POST % (4, b"body")).partition(b"\r\n\r\n")
    with front.connect(head + b"\r\nExpect: 100-continue\r\n\r\n") as client:
        assert until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert until(client, b"body").startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_asks_first_with_too_much_is_refused_unread(front: Running) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
    with front.connect(head) as client:
        assert everything(client).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_whole_and_its_trailers_change_nothing(front: Running) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with front.connect(
        head, b"2;some=thing\r\nab\r\n", b"3\r\ncde\r\n0\r\nHost: other\r\nX: y\r\n\r\n"
    ) as client:
        until(client, b"abcde")
    assert front.echo.seen[-1] == (b"POST", b"/echo", {"host": "x", "transfer-encoding": "chunked"}, b"abcde")


@pytest.mark.parametrize(
    ("head", "flood"),
    [
        (b"GET /", b"a" * 1000),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 200),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1;" + b"a" * 1000 + b"\r\na\r\n",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 200),
    ],
    ids=["target", "header", "headers", "chunk extensions", "trailers"],
)
def test_a_flood_that_is_no_body_is_refused(front: Running, head: bytes, flood: bytes) -> None:
    with front.connect(head) as client:
        client.settimeout(0.001)
        answer = b""
        for _ in range(5000):
            client.sendall(flood)
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
                break
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 413 "))


def test_more_headers_than_a_request_needs_are_refused(front: Running) -> None:
    with front.connect(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n") as client:
        assert everything(client).startswith(b"HTTP/1.1 431 ")


def test_what_all_clients_send_together_is_bounded(front: Running) -> None:
    hold = b"POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    part = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
    clients = [front.connect(hold) for _ in range(3)]
    front.until(lambda: len(front.echo.held) == 3)
    clients += [front.connect(part) for _ in range(2)]
    front.until(lambda: front.front.pending_bytes == 4800)
    with front.connect(hold) as refused:
        assert until(refused, b"overloaded").startswith(b"HTTP/1.1 503 ")
    clients[-1].sendall(b"x" * 100)
    until(clients[-1], b"x" * 1000)
    # What is answered, and whoever leaves, makes room.
    for client in clients:
        client.close()
    front.until(lambda: front.front.pending_bytes == 0)
    front.echo.held.clear()


def test_an_answer_to_a_client_that_has_left_disturbs_nobody(front: Running) -> None:
    hold = GET.replace(b"/", b"/hold", 1)
    gone, stays = front.connect(hold), front.connect(hold)
    front.until(lambda: len(front.echo.held) == 2)
    gone.close()
    front.until(lambda: any(exchange.connection.gone for exchange in front.echo.held))
    front.call(lambda: [exchange.respond(200, b"", b"answer") for exchange in front.echo.held])
    front.echo.held.clear()
    assert until(stays, b"answer").startswith(b"HTTP/1.1 200 OK")
    stays.close()


def test_what_takes_too_long_ends() -> None:
    quick = replace(
        LIMITS, head_seconds=0, request_seconds=0, idle_seconds=0, stalled_seconds=0, connections=5
    )
    with running(quick) as front:
        head, body, idle = front.connect(GET[:-2]), front.connect((POST % (4, b"body"))[:-1]), front.connect()
        refused = front.connect(b"nonsense")
        assert everything(head).endswith(b"request-timeout")
        assert everything(body).endswith(b"request-timeout")
        assert everything(idle) == b""
        assert everything(refused).endswith(b"malformed-request")
        # They had ended their side; now the server drops those that have not ended theirs.
        front.until(lambda: not front.front.connections)


def test_a_client_that_does_not_read_is_left() -> None:
    with running(replace(LIMITS, stalled_seconds=0)) as front:
        client = front.connect(GET.replace(b"/", b"/hold", 1))
        front.until(lambda: front.echo.held)
        front.call(lambda: front.echo.held[0].respond(200, b"", b"x" * 50_000_000))
        front.until(lambda: not front.front.connections)
        client.close()


def test_connections_over_the_limit_are_told_so() -> None:
    with running(replace(LIMITS, connections=1)) as front:
        with front.connect(GET) as first, front.connect() as second:
            assert until(first, b"/")
            assert everything(second).endswith(b"overloaded")
        with front.connect(GET) as third:
            front.until(lambda: len(front.front.connections) < 2)
            assert third.recv(1)


def test_a_drain_answers_what_has_begun_and_closes_the_rest() -> None:
    with running() as front:
        idle, half = front.connect(GET), front.connect((POST % (4, b"half"))[:-2])
        held = front.connect(GET.replace(b"/", b"/hold", 1))
        until(idle, b"/")
        front.until(lambda: front.echo.held and len(front.front.connections) == 3)
        draining = threading.Thread(target=front.drain)
        draining.start()
        assert everything(idle) == b""
        half.sendall(b"lf")
        assert everything(half).endswith(b"half")
        front.call(lambda: front.echo.held[0].respond(200, b"", b"held"))
        assert everything(held).endswith(b"held")
        draining.join()
        with pytest.raises(ConnectionRefusedError):
            front.connect()


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


requests = st.lists(
    st.tuples(
        st.sampled_from([b"POST", b"PUT", b"GET"]),
        st.sampled_from([b"/echo", b"/other?x=1"]),
        st.sampled_from([b"", b"X: y\r\n", b"Transfer-Encoding: chunked\r\n"]),
        st.sampled_from([b"", b"body", b"POST", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]),
    ),
    max_size=6,
)


@given(requests, st.lists(st.integers(1, 120), max_size=30), st.booleans())
def test_however_requests_are_cut_into_pieces_they_are_the_same_requests(
    sent: list[tuple[bytes, bytes, bytes, bytes]], cuts: list[int], whole: bool
) -> None:
    stream = []
    for method, target, extra, body in sent:
        head = b"%s %s HTTP/1.1\r\nHost: x\r\n%s" % (method, target, extra)
        if b"chunked" in extra:
            last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            stream.append(head + b"\r\n" + last)
        else:
            stream.append(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    pieces = stream
    if not whole:
        joined, pieces = b"".join(stream), []
        for cut in cuts:
            pieces.append(joined[:cut])
            joined = joined[cut:]
        pieces.append(joined)
    echo, wire = Echo(), Wire()
    front = Front(echo, LIMITS)
    front.starts = {200: b"HTTP/1.1 200 OK\r\n"}
    connection = Connection(front)
    connection.connection_made(wire)  # type: ignore[arg-type]
    for piece in filter(None, pieces):
        connection.data_received(piece)
    assert [(method, target, body) for method, target, _, body in echo.seen] == [
        (method, target, body) for method, target, _, body in sent
    ]
    assert [headers.get("x") for _, _, headers, _ in echo.seen] == [
        "y" if extra.startswith(b"X") else None for _, _, extra, _ in sent
    ]
    assert wire.written.count(b"HTTP/1.1 200 OK\r\n") == len(sent)
    assert front.pending_bytes == 0


@pytest.mark.parametrize("before", [b"P", b"PO", b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"])
def test_a_request_known_by_its_bytes_is_one_only_where_a_request_begins(before: bytes) -> None:
    echo = Echo()
    front = Front(echo, LIMITS)
    front.starts = {200: b"", 400: b""}
    connection = Connection(front)
    connection.connection_made(Wire())  # type: ignore[arg-type]
    request = POST % (4, b"body")
    connection.data_received(request)
    connection.data_received(request)
    assert len(echo.seen) == 2
    connection.data_received(before)
    connection.data_received(request)
    assert len(echo.seen) == 2 or echo.seen[2][3] != b"body"
