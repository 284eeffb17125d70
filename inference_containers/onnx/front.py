"""HTTP/1.1 on an event loop: connections in, whole requests out, answers back in the order of the requests.

httptools parses; this module is the connection around it: keep-alive, pipelining, refusals before a body has
arrived, time-outs, back-pressure and draining. It knows nothing of models. Everything runs on the loop's
thread, in callbacks: a coroutine for each request would cost as much as the request.

What a client can make this process hold is bounded: by `Limits.body_bytes` a request, by
`Limits.pending_bytes` for all that is received and not yet answered, by `Limits.connections`, and by time.
"""

import asyncio
import contextlib
import email.utils
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol, cast

import httptools

from inference_runtime.errors import Problem

logger = logging.getLogger(__name__)

#: Of a request line, its headers, and what chunks and trailers add to a body.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
#: Requests of one connection that are read before the first of them is answered.
MAX_PIPELINE = 64
#: Clients that are accepted before those that are already here are looked after.
_ACCEPTED = 256
#: Larger bodies are sent beside their head, not copied behind it.
_JOINED_BYTES = 16 * 1024
#: For so many seconds after an answer to one of so few clients the loop looks at the sockets without a pause:
#: whoever asks again at once is then not kept waiting for this process to be woken, which takes as long as a
#: small model's answer. More clients keep it awake, and on a single core it would be in the client's way.
_AWAKE_SECONDS, _AWAKE_CLIENTS = 0.0002, 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take of this process. Times are in seconds."""

    #: Of one request.
    body_bytes: int
    #: Of all requests that are received, even in part, and not answered.
    pending_bytes: int = 256 * 1024 * 1024
    connections: int = 4096
    #: From a request's first byte to its last header.
    head_seconds: float = 10
    #: From a request's first byte to its last; SageMaker gives an invocation 60.
    request_seconds: float = 60
    #: A connection without a request.
    idle_seconds: float = 75
    #: A client that does not read its answer, or goes on sending after a refusal.
    stalled_seconds: float = 20


class Application(Protocol):
    """What answers the requests. Its methods run on the loop and must not raise."""

    def handle(self, exchange: "Exchange") -> None:
        """Answer a whole request, now or later, by its `respond`."""

    def refuse(self, exchange: "Exchange", problem: Problem) -> None:
        """Answer, now, a request that the front will not read further. Its head may be incomplete."""

    def tick(self, now: float) -> None:
        """A second has passed; `now` is by `time.perf_counter`."""


class Head:
    """A request line and headers. A connection's next request has the same object if it has the same head."""

    __slots__ = ("expects", "headers", "memo", "method", "problem", "raw", "target")

    def __init__(self, method: bytes, target: bytes, raw: list[bytes]) -> None:
        self.method = method
        #: As sent: path and query.
        self.target = target
        #: Names and values in turn, as sent.
        self.raw = raw
        #: By lower-case name; the last of several.
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in zip(raw[::2], raw[1::2], strict=True)
        }
        #: Why the request is refused before its body has come.
        self.problem: Problem | None = None
        self.expects = self.headers.get("expect", "").lower() == "100-continue"
        #: For the application: what it has found out about a request with this head.
        self.memo: Any = None


class Exchange:
    """One request, and the place of its answer on its connection."""

    __slots__ = ("body", "connection", "head", "keep_alive", "response", "started")

    def __init__(
        self, connection: "Connection", head: Head, body: bytes, keep_alive: bool, started: float
    ) -> None:
        #: Its `gone` says whether the client has left, so that nobody waits for the answer.
        self.connection = connection
        self.head = head
        self.body = body
        self.keep_alive = keep_alive
        #: By `time.perf_counter`, when its first byte was read.
        self.started = started
        #: In pieces.
        self.response: tuple[bytes, ...] | None = None

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Send the answer as soon as those before it are sent. Never fails; all but the first are ignored.

        Args:
            headers: lines, each with its end; date, length and connection are added here.
        """
        if self.response is not None:
            return
        connection = self.connection
        if not self.keep_alive:
            headers += b"connection: close\r\n"
        start = connection.front.starts[status]
        size = len(body)
        if self.head.method == b"HEAD":
            body = b""
        if size > _JOINED_BYTES:
            self.response = (b"%s%scontent-length: %d\r\n\r\n" % (start, headers, size), body)
        else:
            self.response = (b"%s%scontent-length: %d\r\n\r\n%s" % (start, headers, size, body),)
        connection.answered()


class Front:
    """Accepts connections on a socket and gives their requests to an application, until it is drained."""

    def __init__(
        self, application: Application, limits: Limits, ended: MutableSequence[int] | memoryview | None = None
    ) -> None:
        """`ended[0]` is kept as the number of connections that have ended."""
        self.application = application
        self.limits = limits
        self.connections: set[Connection] = set()
        self.ended = [0] if ended is None else ended
        #: Gives a client to another process, or says that it did not.
        self.share: Callable[[socket.socket], bool] = lambda client: False
        #: Bytes of bodies that are received and not answered.
        self.pending_bytes = 0
        #: Clients are told to leave.
        self.draining = False
        #: Of an answer by its status: the status line and the date.
        self.starts: dict[int, bytes] = {}
        self._loop: asyncio.AbstractEventLoop
        self._listener: socket.socket | None = None
        #: Accepted, and not connected yet.
        self.connecting: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        #: So many clients, at most, keep the loop awake, and until when it is; 0 while it may pause.
        self._awake_clients = 0
        self._awake_until = 0.0
        self._ticking: asyncio.TimerHandle | None = None

    async def start(self, listener: socket.socket | None = None) -> None:
        """Accept from now on, or serve only whom `adopt` is given."""
        loop = self._loop = asyncio.get_running_loop()
        if len(os.sched_getaffinity(0)) > 1:
            self._awake_clients = _AWAKE_CLIENTS
        self._tick(loop)
        if listener is not None:
            listener.setblocking(False)
            self._listener = listener
            loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """Take every client that waits: the loop's own server takes one each time that it looks."""
        with contextlib.suppress(OSError):
            for _ in range(_ACCEPTED):
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.share(client):
                    client.close()
                else:
                    self.adopt(client)

    def adopt(self, client: socket.socket) -> None:
        """Serve a client that has been accepted."""
        connection = Connection(self)
        self.connecting.add(connection)
        task = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: cast(asyncio.Protocol, connection), client)
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._connected, connection))

    def _connected(self, connection: "Connection", task: "asyncio.Task[Any]") -> None:
        """Or failed to."""
        self._tasks.discard(task)
        self.connecting.discard(connection)

    def later(self, call: Callable[[], None]) -> None:
        """Call when the loop has sent what was written until now."""
        self._loop.call_soon(call)

    def stay_awake(self) -> None:
        """A client was answered, and nobody waits: expect the next request for a moment."""
        if len(self.connections) <= self._awake_clients:
            awake, self._awake_until = self._awake_until, perf_counter() + _AWAKE_SECONDS
            if not awake:
                self._loop.call_soon(self._look)

    def _look(self) -> None:
        if perf_counter() < self._awake_until:
            self._loop.call_soon(self._look)
        else:
            self._awake_until = 0.0

    @property
    def clients(self) -> int:
        """How many there are, with those that are about to be."""
        return len(self.connections) + len(self.connecting)

    def yield_clients(self, number: int) -> None:
        """Give so many clients to `share`, each as soon as it is between two requests."""
        able = [connection for connection in self.connections if connection.repeats]
        for index, connection in enumerate(able):
            connection.offer(index < number)

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, answer what has begun within `seconds`, and close every connection."""
        self.draining = True
        if self._listener:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        told: set[Connection] = set()
        end = perf_counter() + seconds
        while (self.connections or self.connecting) and perf_counter() < end:
            # Some may be accepted and not connected yet.
            for connection in self.connections - told:
                connection.leave()
            told |= self.connections
            await asyncio.sleep(0.02)
        if self._ticking:
            self._ticking.cancel()
        if self.connections:
            logger.warning("stopped before every request was answered", extra={"open": len(self.connections)})
            for connection in list(self.connections):
                connection.abort()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second: the date of the answers, and every connection's time-outs."""
        date = email.utils.formatdate(usegmt=True)
        self.starts = {
            status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\ndate: {date}\r\n".encode()
            for status in HTTPStatus
        }
        now = perf_counter()
        for connection in list(self.connections):
            connection.check(now)
        self.application.tick(now)
        self._ticking = loop.call_later(1, self._tick, loop)


class Connection:
    """One client, as asyncio.Protocol is one; the parser calls the `on_...` methods while it is fed.

    It does not inherit from that: what is compiled is quick only where its bases are compiled too.
    """

    __slots__ = (
        "_begun", "_blocked", "_closing", "_expected", "_extra", "_head", "_head_done", "_keep_alive",
        "_last", "_like", "_parser", "_parts", "_pipeline", "_raw", "_reading", "_since", "_size",
        "_transport", "_url", "_whole", "front", "gone", "single", "yielding",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        self.front = front
        #: The client has left. May be read by any thread.
        self.gone = False
        #: What came last was one whole request, like the one before it, and nothing else.
        self.single = False
        #: It is to be served by another process.
        self.yielding = False
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        #: Requests that are read and not answered, in order.
        self._pipeline: deque[Exchange] = deque()
        #: The request that is being read: its target, empty while there is none, its headers, whether these
        #: are complete, the parts and size of its body so far, and when it began.
        self._url = b""
        self._raw: list[bytes] = []
        self._head_done = False
        self._parts: list[bytes] = []
        self._size = 0
        self._since = 0.0
        #: The last head that was complete, and whether its client wants to go on.
        self._head = _NO_HEAD
        self._keep_alive = True
        #: That head's bytes, and their length with its body, where its next request is known by them.
        self._like = b""
        self._whole = -1
        #: Whether it began with the data that are being parsed, and its bytes before them that are no body.
        self._begun = False
        self._extra = 0
        #: It waits for `100 Continue`.
        self._expected = False
        #: No further request is answered: what arrives is dropped until the client has left.
        self._closing = False
        #: Since when the client has not read what it was sent.
        self._blocked: float | None = None
        self._reading = True
        #: When the connection was last used.
        self._last = perf_counter()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.front.connecting.discard(self)
        self.front.connections.add(self)
        if len(self.front.connections) > self.front.limits.connections:
            exchange = Exchange(self, _NO_HEAD, b"", False, self._last)
            self._pipeline.append(exchange)
            self.front.application.refuse(
                exchange, Problem("overloaded", "Too many connections; try again", {"retry-after": "1"})
            )

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._transport = None
        # The parser refers to this object, and this object to the parser.
        self._parser = None
        self.front.connections.discard(self)
        self.front.ended[0] += 1
        self.front.pending_bytes -= self._size + sum(len(exchange.body) for exchange in self._pipeline)
        self._size = 0
        self._parts.clear()
        self._pipeline.clear()

    def eof_received(self) -> bool:
        # A client that ends its side has left: one that is killed looks the same.
        return False

    def pause_writing(self) -> None:
        self._blocked = perf_counter()
        self._regulate()

    def resume_writing(self) -> None:
        self._blocked = None
        self._regulate()

    def data_received(self, data: bytes) -> None:
        if len(data) == self._whole and not self._url and data.startswith(self._like):
            # The same head as before, at the same place, means the same to the parser.
            if not self._closing:
                self.front.pending_bytes += len(data) - len(self._like)
                self.single = True
                self._complete(data[len(self._like) :], perf_counter())
            return
        before = self._size
        self._begun = self.single = False
        while not self._closing:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # Clients that offer another protocol are answered in this one.
                data = data[upgrade.args[0] :]
                if data:
                    continue
            except httptools.HttpParserCallbackError:
                logger.exception("request failed")
                self._refuse(Problem("internal", "The server could not answer this request"))
            except httptools.HttpParserError:
                self._refuse(Problem("malformed-request", "This is no HTTP/1.1 request"))
            break
        if not self._url:
            self._remember(data)
        elif not self._closing:
            # Where it began with these data, they hold what was before it too.
            self._extra = 0 if self._begun else self._extra + len(data) - (self._size - before)
            if self._extra > MAX_HEAD_BYTES + 8 * self._size:
                self._refuse(Problem("headers-too-large", f"The limit is {MAX_HEAD_BYTES} bytes"))
            elif self.front.pending_bytes > self.front.limits.pending_bytes:
                self._refuse(_overloaded())

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        if not self._url:
            self._since = perf_counter()
            self._begun = True
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after the body would change a request that is half read.
        if not self._head_done:
            self._raw.append(name)
            self._raw.append(value)

    def on_headers_complete(self) -> None:
        if self._closing:
            return
        head, raw = self._head, self._raw
        method = self._parser.get_method()
        if raw != head.raw or self._url != head.target or method != head.method:
            head = self._head = Head(method, self._url, raw)
            head.problem = self._objection(head)
        self._raw = []
        self._head_done = True
        if head.problem:
            self._refuse(head.problem)
        elif head.expects:
            self._expected = True
            self._continue()

    def on_body(self, body: bytes) -> None:
        if not self._closing:
            self._parts.append(body)
            self._size += len(body)
            self.front.pending_bytes += len(body)
            if self._size > self.front.limits.body_bytes:
                self._refuse(_too_large(self.front.limits))

    def on_message_complete(self) -> None:
        if self._closing:
            return
        parts = self._parts
        body = b""
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._size = 0
        self._url = b""
        self._head_done = self._expected = False
        self._keep_alive = self._parser.should_keep_alive()
        self._complete(body, self._since)

    def _complete(self, body: bytes, since: float) -> None:
        front = self.front
        exchange = Exchange(self, self._head, body, self._keep_alive and not front.draining, since)
        self._pipeline.append(exchange)
        if front.pending_bytes > front.limits.pending_bytes:
            front.application.refuse(exchange, _overloaded())
        else:
            front.application.handle(exchange)
        if len(self._pipeline) == MAX_PIPELINE:
            self._regulate()

    # What the requests and the front call.

    def answered(self) -> None:
        """Send the answers that are there, in the order of their requests."""
        pipeline = self._pipeline
        while pipeline and (response := pipeline[0].response) is not None:
            exchange = pipeline.popleft()
            self.front.pending_bytes -= len(exchange.body)
            self._last = exchange.started
            self._write(response)
            if not exchange.keep_alive:
                self._end()
                return
        if not pipeline:
            self.front.stay_awake()
            if self._expected:
                self._continue()
        if not self._reading:
            self._regulate()
        elif self.yielding and not pipeline:
            self._yield()

    def leave(self) -> None:
        """Close as soon as what has begun is answered."""
        if self._url or self._transport is None:
            return
        if self._pipeline:
            self._pipeline[-1].keep_alive = False
        elif self._closing:
            self.abort()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport:
            self._transport.abort()

    def check(self, now: float) -> None:
        """Close what has taken too long."""
        limits = self.front.limits
        if self._closing or self._blocked is not None:
            if now - (self._blocked or self._last) > limits.stalled_seconds:
                self.abort()
        elif self._url:
            waited = now - self._since
            if waited > (limits.request_seconds if self._head_done else limits.head_seconds):
                self._refuse(Problem("request-timeout", "The request did not arrive in time"))
        elif not self._pipeline and now - self._last > limits.idle_seconds and self._transport:
            self._transport.close()

    # Within.

    def _refuse(self, problem: Problem) -> None:
        """Answer the request that is being read and read no more. Those before it are still answered."""
        head = self._head
        if not self._head_done:
            # Half of them, or none: what there is may still name the request.
            head = Head(b"", self._url, self._raw)
        since = self._since if self._url else perf_counter()
        self._url, self._raw = b"", []
        self._closing = True
        self._expected = False
        self._last = perf_counter()
        self.front.pending_bytes -= self._size
        self._size = 0
        self._parts.clear()
        exchange = Exchange(self, head, b"", False, since)
        self._pipeline.append(exchange)
        self.front.application.refuse(exchange, problem)

    def _remember(self, data: bytes) -> None:
        """Know a request like this one by its bytes, if `data` are one whole request and nothing else."""
        head = self._head
        self._whole = -1
        if self._closing or not self._keep_alive or head.expects:
            return
        length = head.headers.get("content-length")
        if length is None or "transfer-encoding" in head.headers:
            return
        start = len(data) - int(length)
        if head.raw and data.find(b"\r\n\r\n") == start - 4 and data.startswith(head.method):
            self._like = data[:start]
            self._whole = len(data)

    def _objection(self, head: Head) -> Problem | None:
        """Why a request is refused without its body."""
        limits = self.front.limits
        if len(head.raw) > 2 * MAX_HEADERS:
            return Problem("headers-too-large", f"The limit is {MAX_HEADERS} headers")
        if "host" not in head.headers and self._parser.get_http_version() == "1.1":
            return Problem("malformed-request", "HTTP/1.1 needs a Host header")
        if int(head.headers.get("content-length", 0)) > limits.body_bytes:
            return _too_large(limits)
        return None

    def _end(self) -> None:
        """Close, after all that was written.

        A client that is still sending would lose its answer to the reset that closing causes, so our side
        ends first, and the rest is read and dropped.
        """
        self.front.pending_bytes -= sum(len(exchange.body) for exchange in self._pipeline)
        self._pipeline.clear()
        if self._transport is None:
            return
        if self._closing:
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        else:
            self._closing = True
            self._transport.close()

    def _write(self, pieces: tuple[bytes, ...]) -> None:
        """Send, if there is still somebody to send to: a client's leaving is no error of its neighbours'."""
        if self._transport is None:
            return
        try:
            if len(pieces) == 1:
                self._transport.write(pieces[0])
            else:
                self._transport.writelines(pieces)
        except (OSError, RuntimeError):
            # uvloop refuses to write to what is closed and not yet known to be lost.
            self.gone = True

    @property
    def repeats(self) -> bool:
        """Whether the last that came was one whole request and nothing else."""
        return self._whole >= 0 and not self._closing

    def offer(self, yielding: bool) -> None:
        """Let another process have the client, now or after the answers that it waits for; or no more."""
        self.yielding = yielding
        if yielding and not self._pipeline:
            self._yield()

    def _yield(self) -> None:
        self.yielding = False
        if not self.repeats or self._url or self._transport is None or not self._reading:
            return
        # What comes from now on stays in the socket. The answer is on its way when the loop comes back.
        self._transport.pause_reading()
        self.front.later(self._yielded)

    def _yielded(self) -> None:
        if self._transport is None:
            return
        if not self._transport.is_closing() and not self._transport.get_write_buffer_size():
            client = self._transport.get_extra_info("socket")
            if self.front.share(client):
                self._transport.abort()
                return
        if self._reading:
            self._transport.resume_reading()

    def _continue(self) -> None:
        """Ask for the body, once everything before it is answered."""
        if not self._pipeline:
            self._expected = False
            self._write((b"HTTP/1.1 100 Continue\r\n\r\n",))

    def _regulate(self) -> None:
        """Read from a client only while it reads, and waits for few answers."""
        reading = self._blocked is None and len(self._pipeline) < MAX_PIPELINE
        if reading != self._reading and self._transport and not self._transport.is_closing():
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()


_NO_HEAD = Head(b"", b"", [])


def _too_large(limits: Limits) -> Problem:
    return Problem("payload-too-large", f"The body is over the limit of {limits.body_bytes} bytes")


def _overloaded() -> Problem:
    return Problem(
        "overloaded", "The server holds as many requests as it may; try again", {"retry-after": "1"}
    )
