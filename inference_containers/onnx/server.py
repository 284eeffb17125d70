"""The GPU target: models behind SageMaker's container contract and the Open Inference Protocol's routes.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html

    GET  /ping          200 while every model answers; 503 before its warm-up, if it cannot load, or is stuck
    POST /invocations   inference; with X-Amzn-SageMaker-Custom-Attributes `op=metadata`, the model's metadata
    GET  /metrics       for Prometheus
    /v2/...             the protocol's own routes, with its model repository extension

Environment, beside what `settings` reads:
    MODEL_DIR               the artifact's folder, /opt/ml/model by default; or a folder of such folders
    MODEL_NAME              the model's name in the catalog; of several, the one behind /invocations
    MODEL_SHA256            the artifact's id, where there is one
    SAGEMAKER_BIND_TO_PORT  the port, 8080 by default
    BIND_HOST               the address, 127.0.0.1 by default; the image says 0.0.0.0
"""

import asyncio
import itertools
import logging
import os
import re
import resource
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import socket
from time import perf_counter

import orjson
import uvloop

from inference_containers.onnx import front, hosting, memory, processes
from inference_containers.onnx.board import Board
from inference_containers.onnx.front import Exchange, Front
from inference_containers.onnx.hosting import Find, Host, Hosted
from inference_containers.onnx.processes import Membership, Siblings
from inference_containers.onnx.settings import Settings
from inference_runtime import codecs, logs
from inference_runtime.batching import Arrays, Batch, Job
from inference_runtime.codecs import CONTENT_ENCODING, HEADER_LENGTH, Call, Codec
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import FILE_NAME, verify
from inference_runtime.protocol import InferRequest
from inference_runtime.service import MAX_BINARY_ANSWER_BYTES, SERVER, Answer, check_answer

#: SageMaker kills 30 s after SIGTERM.
DRAIN_SECONDS = 25
#: For those that have been told to end.
_GRACE_SECONDS = 1
#: At most, of all processes together, where each may have so many open files.
_CONNECTIONS = 4096
#: Bodies up to this size, unless compressed, are parsed on the loop: to hand them over would take longer.
_PARSED_BYTES = 64 * 1024
#: Answers with more bytes of values are written in a thread.
_WRITTEN_BYTES = 64 * 1024
#: What SageMaker and API Gateway put into these headers, and nothing that could forge a log line.
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_INFERENCE_ID = "x-amzn-sagemaker-inference-id"
_TIMEOUT = "x-request-timeout-ms"
_JSON = "application/json"
_DOCUMENT: Mapping[str, str] = {"content-type": _JSON}
_INFER = re.compile(r"/v2/models/([^/]+)/infer")
_MODEL = re.compile(r"/v2/models/([^/]+)(/.*)?")
_REPOSITORY = re.compile(r"/v2/repository/(?:index|models/([^/]+)/(load|unload))")

logger = logging.getLogger("access")


class _Memo:
    """What the head of a request says about inference."""

    __slots__ = ("compressed", "model", "plain", "quick", "request_id", "timeout")

    def __init__(self, model: str, headers: Mapping[str, str], most: float) -> None:
        self.model = model
        #: The client's own, if it is usable.
        self.request_id = _given_id(headers)
        #: The body is a document, and so is the answer.
        self.plain = codecs.plainest(headers)
        self.timeout = _timeout(headers, most)
        self.compressed = CONTENT_ENCODING in headers
        #: However long the body is: its tensors are bytes, which are taken as they are.
        text = headers.get(HEADER_LENGTH, "")
        self.quick = text.isascii() and text.isdigit() and int(text[:12]) <= _PARSED_BYTES


class _Inference(Job):
    """A request with one inference, or with one on each line."""

    __slots__ = ("app", "call", "exchange", "hosted", "parsed", "request")

    def __init__(
        self, app: "App", exchange: Exchange, hosted: Hosted, request: InferRequest, call: Call | None
    ) -> None:
        deadline = exchange.started + exchange.head.memo.timeout
        Job.__init__(self, request.inputs, request.outputs, exchange.connection, deadline)
        self.app = app
        self.exchange = exchange
        self.hosted = hosted
        self.request = request
        #: Nothing where a document is answered by a document.
        self.call = call
        #: When it was read, by `time.perf_counter`, and how long that took.
        self.parsed = 0.0

    def finish(self, batch: Batch, start: int, end: int) -> None:
        self.app.answer(self, batch, start, end)

    def fail(self, problem: Problem) -> None:
        self.app.refuse(self.exchange, problem)


class _Lines:
    """A request with an inference on each line. A few are submitted at a time, however many it has."""

    def __init__(self, whole: _Inference) -> None:
        self.whole = whole
        assert whole.call is not None
        self._requests = whole.call.requests
        self._answers: list[Arrays] = [{} for _ in self._requests]
        self._next = 0
        self._missing = len(self._answers)
        self._failed = False

    def start(self) -> None:
        """Submit the first."""
        batcher = self.whole.hosted.batcher
        assert batcher is not None
        for _ in range(min(self._missing, batcher.plan.max_batch)):
            self._submit()

    def take(self, index: int, arrays: Arrays, batch: Batch) -> None:
        """A line's answer."""
        self._answers[index] = arrays
        self._missing -= 1
        if self._missing:
            self._submit()
        elif not self._failed:
            self.whole.app.answer_lines(self.whole, self._answers, batch)

    def fail(self, index: int, problem: Problem) -> None:
        """The first line that fails is the answer."""
        whole = self.whole
        if not self._failed:
            self._failed = True
            assert whole.call is not None
            whole.fail(whole.call.located(index, problem))

    def _submit(self) -> None:
        index = self._next
        if index == len(self._answers) or self._failed:
            return
        self._next += 1
        line = _Line(self, self._requests[index], index)
        batcher = self.whole.hosted.batcher
        assert batcher is not None
        try:
            batcher.submit(line)
        except Problem as problem:
            self.fail(index, problem)


class _Line(Job):
    __slots__ = ("index", "lines")

    def __init__(self, lines: _Lines, request: InferRequest, index: int) -> None:
        whole = lines.whole
        super().__init__(request.inputs, request.outputs, whole.client, whole.deadline)
        self.lines = lines
        self.index = index

    def finish(self, batch: Batch, start: int, end: int) -> None:
        self.lines.take(self.index, _rows(batch, self.outputs, start, end), batch)

    def fail(self, problem: Problem) -> None:
        self.lines.fail(self.index, problem)


class App:
    """Routes requests: inference to the model's batcher, everything else to its service."""

    def __init__(self, host: Host, default: str | None, board: Board) -> None:
        """`default` names the model behind /invocations."""
        self._host = host
        self._default = default
        self._board = board
        self.metrics = host.metrics.server
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="parse")
        #: Lines that the access log still has in this second, for answers and for errors, and those left out.
        self._lines = self._error_lines = host.settings.log_lines
        self._suppressed = 0

    # What the front calls.

    def handle(self, exchange: Exchange) -> None:
        """Answer a request."""
        try:
            hosted = self._invoked(exchange)
            if hosted:
                self._infer(exchange, hosted)
            else:
                self._ask(exchange)
        except Problem as problem:
            self.refuse(exchange, problem)
        except Exception:
            self._fail(exchange)

    def refuse(self, exchange: Exchange, problem: Problem) -> None:
        """Answer with a problem."""
        self._send(exchange, Answer.refusing(problem, _request_id(exchange)))

    def tick(self, now: float) -> None:
        """Answer what is late, and say what the log left out."""
        self._host.expire(now)
        if self._suppressed:
            logger.info("requests not logged", extra={"count": self._suppressed})
            self.metrics.suppress(self._suppressed)
            self._suppressed = 0
        self._lines = self._error_lines = self._host.settings.log_lines
        self._host.metrics.publish()
        self.tell()

    def tell(self) -> None:
        """Let the other processes know how this one is, once it serves."""
        awaited = self._host.awaited()
        if not any(hosted.loading for hosted in awaited):
            self._board.tell(all(hosted.ready for hosted in awaited))

    # An inference, step by step.

    def _invoked(self, exchange: Exchange) -> Hosted | None:
        """The model that is to infer, if this asks for inference by one that is here."""
        head = exchange.head
        memo: _Memo | None = head.memo
        if memo is None:
            if head.method != b"POST" or head.headers.get(_ATTRIBUTES) == "op=metadata":
                return None
            path = head.target.partition(b"?")[0].decode("latin-1")
            match = _INFER.fullmatch(path)
            name = match[1] if match else self._default if path == "/invocations" else None
            if name is None or name not in self._host.models:
                return None
            memo = head.memo = _Memo(name, head.headers, self._host.settings.deadline_seconds)
        return self._host.models.get(memo.model)

    def _infer(self, exchange: Exchange, hosted: Hosted) -> None:
        if hosted.batcher is None:
            hosted.service.loaded()
        memo: _Memo = exchange.head.memo
        if memo.compressed or (len(exchange.body) > _PARSED_BYTES and not memo.quick):
            self._threads.submit(self._parse, exchange, hosted)
        else:
            self._submit(self._read(exchange, hosted))

    def _read(self, exchange: Exchange, hosted: Hosted) -> _Inference:
        started = perf_counter()
        codec = hosted.codec
        request: InferRequest | None = None
        if exchange.head.memo.plain:
            request = codec.read_document(exchange.body)
        if request is not None and not request.binary:
            job = _Inference(self, exchange, hosted, request, None)
        else:
            call = codec.read(exchange.head.headers, exchange.body, self._host.settings.body_bytes)
            job = _Inference(self, exchange, hosted, call.requests[0], call)
        job.parsed = perf_counter() - started
        return job

    def _parse(self, exchange: Exchange, hosted: Hosted) -> None:
        """Read, in a thread."""
        call = self._host.loop.call_soon_threadsafe
        if exchange.connection.gone:
            return
        try:
            call(self._parsed, self._read(exchange, hosted))
        except Problem as problem:
            call(self.refuse, exchange, problem)
        except Exception:
            logger.exception("request not read")
            call(self.refuse, exchange, _internal())

    def _parsed(self, job: _Inference) -> None:
        try:
            self._submit(job)
        except Problem as problem:
            job.fail(problem)

    def _submit(self, job: _Inference) -> None:
        if job.call is not None and (job.call.lines or len(job.call.requests) > 1):
            _Lines(job).start()
        else:
            assert job.hosted.batcher is not None
            job.hosted.batcher.submit(job)

    def answer(self, job: _Inference, batch: Batch, start: int, end: int) -> None:
        """Write an inference's answer."""
        began = perf_counter()
        try:
            if job.call is None and job.rows == 1 and job.request.id is None:
                if batch.memo is None:
                    batch.memo = _together(job.hosted.codec, batch)
                if len(batch.memo) > start and (end or len(batch.memo) == 1):
                    self._answered(job, batch, began, _DOCUMENT, batch.memo[start], True)
                    return
        except Problem as problem:
            job.fail(problem)
        except Exception:
            self._fail(job.exchange)
        else:
            self._write(job, [_rows(batch, job.outputs, start, end)], batch, began)

    def answer_lines(self, job: _Inference, answers: list[Arrays], batch: Batch) -> None:
        """Write the answer to all lines; `batch` was the last."""
        job.queued = job.exchange.started
        self._write(job, answers, batch, perf_counter())

    def _write(self, job: _Inference, answers: list[Arrays], batch: Batch, began: float) -> None:
        """Write an answer: a long one in a thread, as it is also compressed where the client takes that."""
        if sum(map(_size, answers)) > _WRITTEN_BYTES:
            later = self._host.loop.call_soon_threadsafe
            self._threads.submit(self._written, later, job, answers, batch, began)
        else:
            self._written(_now, job, answers, batch, began)

    def _written(
        self, call: Callable[..., object], job: _Inference, answers: list[Arrays], batch: Batch, began: float
    ) -> None:
        try:
            if job.call is None:
                body = job.hosted.codec.write_document(job.request, answers[0])
                call(self._answered, job, batch, began, _DOCUMENT, body, True)
            else:
                encoded = job.hosted.codec.write(job.call, answers)
                call(self._answered, job, batch, began, encoded.headers, encoded.body, encoded.is_text)
        except Problem as problem:
            call(job.fail, problem)
        except Exception:
            logger.exception("answer not written")
            call(self.refuse, job.exchange, _internal())

    def _answered(
        self, job: _Inference, batch: Batch, began: float, headers: Mapping[str, str], body: bytes, text: bool
    ) -> None:
        size = len(body)
        if size > MAX_BINARY_ANSWER_BYTES:
            try:
                check_answer(size, text)
            except Problem as problem:
                job.fail(problem)
                return
        exchange, metrics = job.exchange, job.hosted.metrics
        memo: _Memo = exchange.head.memo
        ended = perf_counter()
        ran = batch.started
        metrics.answered(
            job.parsed, ran - job.queued, batch.ended - ran, ended - began, ended - exchange.started
        )
        request_id = memo.request_id or next(_ids)
        # First the record: once a client has its answer, the log has the request.
        if self._lines > 0:
            self._record(exchange, job.hosted, request_id, 200, size)
        else:
            metrics.statuses[200] += 1
            self._suppressed += 1
        exchange.respond(200, _lines(headers, request_id), body)

    # Everything else.

    def _ask(self, exchange: Exchange) -> None:
        """Answer what is no inference."""
        method = exchange.head.method.decode("latin-1")
        path = exchange.head.target.partition(b"?")[0].decode("latin-1")
        request_id = _request_id(exchange)
        if path == "/ping":
            path = "/v2/health/ready"
        elif path == "/invocations" and self._default is not None:
            path = f"/v2/models/{self._default}"
            if method == "POST" and exchange.head.headers.get(_ATTRIBUTES) == "op=metadata":
                method = "GET"
            else:
                path += "/infer"
        match = _MODEL.fullmatch(path)
        hosted = self._host.models.get(match[1]) if match else None
        if hosted:
            answer = hosted.service.handle(method, path, exchange.head.headers, b"", request_id)
            if path.endswith("/ready") and answer.status == 200:
                self._require_ready(hosted)
            self._send(exchange, answer)
            return
        repository = _REPOSITORY.fullmatch(path)
        if repository:
            _require(method, "POST")
            self._manage(exchange, *repository.groups())
            return
        for known, document in (
            ("/v2", self._metadata),
            ("/v2/health/live", self._live),
            ("/v2/health/ready", self._ready),
            ("/metrics", self._host.metrics.exposed),
        ):
            if path == known:
                _require(method, "GET")
                content_type, body = document()
                self._send(
                    exchange, Answer(200, {"content-type": content_type, "x-request-id": request_id}, body)
                )
                return
        what = f"model {shown(match[1])}" if match else shown(path)
        raise Problem("not-found", f"There is no {what} here")

    def _metadata(self) -> tuple[str, bytes]:
        extensions = [*SERVER["extensions"], *(["model_repository"] if self._host.repository else [])]
        return _JSON, orjson.dumps({**SERVER, "extensions": extensions})

    def _live(self) -> tuple[str, bytes]:
        return _JSON, orjson.dumps({"live": True})

    def _ready(self) -> tuple[str, bytes]:
        for hosted in self._host.awaited():
            self._require_ready(hosted)
        return _JSON, orjson.dumps({"ready": True})

    def _require_ready(self, hosted: Hosted) -> None:
        """Raise model-unavailable unless it answers, in every process."""
        hosted.service.loaded()
        if not hosted.ready or not self._board.well(self._host.settings.limits.wedged_seconds):
            raise Problem("model-unavailable", f"The model {hosted.service.name!r} does not answer")

    def _manage(self, exchange: Exchange, name: str | None, operation: str | None) -> None:
        """The repository's routes. A load is answered when it has ended."""
        request_id = _request_id(exchange)
        headers = {"content-type": _JSON, "x-request-id": request_id}
        if name is None:
            ready = _asks_for_ready(exchange.body)
            self._send(exchange, Answer(200, headers, orjson.dumps(self._host.index(ready))))
        elif operation == "unload":
            self._host.unload(name)
            self._send(exchange, Answer(200, headers, b"{}"))
        else:
            hosted = self._host.load(name)

            def loaded() -> None:
                try:
                    hosted.service.loaded()
                    self._send(exchange, Answer(200, headers, b"{}"))
                except Problem as problem:
                    self.refuse(exchange, problem)

            hosted.when_loaded(loaded)

    # Sending.

    def _fail(self, exchange: Exchange) -> None:
        request_id = _request_id(exchange)
        logging.exception("request failed", extra={"request_id": request_id})
        self._send(exchange, Answer.refusing(_internal(), request_id))

    def _send(self, exchange: Exchange, answer: Answer) -> None:
        """Send what is no inference's answer."""
        headers = dict(answer.headers)
        request_id = headers.pop("x-request-id")
        if exchange.head.target != b"/ping" or answer.status != 200:
            memo = exchange.head.memo
            name = memo.model if memo else self._default
            hosted = self._host.models.get(name) if name is not None else None
            self._record(exchange, hosted, request_id, answer.status, len(answer.body))
        exchange.respond(answer.status, _lines(headers, request_id), answer.body)

    def _record(
        self, exchange: Exchange, hosted: Hosted | None, request_id: str, status: int, bytes_out: int
    ) -> None:
        """Count an answer, and log it while this second has lines left."""
        (hosted or self).metrics.statuses[status] += 1
        if status < 400:
            self._lines -= 1
            left = self._lines
        else:
            self._error_lines -= 1
            left = self._error_lines
        if left < 0:
            self._suppressed += 1
            return
        logger.info(
            "request",
            extra={
                "request_id": request_id,
                "model": hosted.service.name if hosted else None,
                "version": hosted.service.version if hosted else None,
                "method": exchange.head.method.decode("latin-1"),
                "path": exchange.head.target.partition(b"?")[0].decode("latin-1"),
                "status": status,
                "latency_ms": round((perf_counter() - exchange.started) * 1000, 3),
                "bytes_in": len(exchange.body),
                "bytes_out": bytes_out,
            },
        )


def main(listener: socket) -> int:
    """Serve what the environment says on `listener` until SIGTERM; the exit status."""
    return _main(listener, None)


def sibling(descriptor: int) -> int:
    """Serve what the process at the other end of a socket pair does, until that ends; the exit status."""
    return _main(None, Membership(descriptor))


def _main(listener: socket | None, member: Membership | None) -> int:
    logs.configure()
    folder = Path(os.environ.get("MODEL_DIR", "/opt/ml/model"))
    name = os.environ.get("MODEL_NAME")
    try:
        settings = Settings.of()
    except ValueError as error:
        logging.error("%s", error)
        return 2
    repository = None if (folder / FILE_NAME).exists() or not hosting.folders(folder) else folder
    if repository:
        models = hosting.found(repository)
    else:
        sha256 = os.environ.get("MODEL_SHA256")
        missing = [key for key in ("MODEL_NAME", "MODEL_SHA256") if not os.environ.get(key)]
        if missing:
            logging.error("the environment lacks %s", ", ".join(missing))
            return 2
        assert name
        models = {name: lambda: verify(folder, sha256)}
    if name is None and len(models) == 1:
        [name] = models
    if member:
        return uvloop.run(_join(member, models, settings, name))
    assert listener
    uvloop.run(_serve(listener, models, settings, name, repository))
    return 0


async def _serve(
    listener: socket,
    models: Mapping[str, Find],
    settings: Settings,
    default: str | None,
    repository: Path | None,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what has begun.

    Args:
        models: by name, how the artifact is found of each that is loaded at once.
        default: the one behind /invocations.
        repository: where further models are loaded from, by the protocol's repository routes.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    board = Board(1 if repository else processes.most(settings))
    host = Host(loop, settings, board.metrics(), models, repository, processes=board.processes)
    app = App(host, default, board)
    listening = Front(app, _limits(settings, 1), board.ended)
    siblings = Siblings(loop, listening, board)

    def grow(hosted: Hosted) -> None:
        if hosted.batcher and hosted.batcher.plan.processes:
            host.settle(settings.shared(board.processes))
            listening.limits = _limits(settings, board.processes)
            siblings.start(hosted.batcher)
            memory.trim()

    await listening.start(listener)
    host.start()
    if board.processes > 1:
        [hosted] = host.awaited()
        hosted.when_loaded(lambda: grow(hosted))
    await stopped.wait()
    siblings.close()
    end = perf_counter() + DRAIN_SECONDS
    await listening.drain(DRAIN_SECONDS)
    await siblings.ended(max(_GRACE_SECONDS, end - perf_counter()))


async def _join(
    member: Membership, models: Mapping[str, Find], settings: Settings, default: str | None
) -> int:
    """Serve the clients that are given, until the first process ends."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    # Whoever stops the whole group stops the first process too, and that says so.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    member.watch(lambda: loop.call_soon_threadsafe(stopped.set), DRAIN_SECONDS + _GRACE_SECONDS)
    board = member.board
    host = Host(loop, settings.shared(board.processes), board.metrics(), models, None, member.plan)
    app = App(host, default, board)
    given = Front(app, _limits(settings, board.processes), board.ended)
    [hosted] = host.awaited()

    def ready() -> None:
        if hosted.batcher:
            memory.trim()
            app.tell()
            member.join(loop, given)
        else:
            stopped.set()

    await given.start()
    host.start()
    hosted.when_loaded(ready)
    await stopped.wait()
    if not hosted.loading:
        member.take(given)
    await given.drain(DRAIN_SECONDS)
    return 0 if hosted.batcher else 1


def _limits(settings: Settings, processes: int) -> front.Limits:
    """A front's, of so many processes."""
    settings = settings.shared(processes)
    # Each connection is an open file, and so are the models'.
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = max(1, min(_CONNECTIONS // processes, files - 128))
    return front.Limits(settings.body_bytes, settings.pending_bytes, connections)


def _require(method: str, allowed: str) -> None:
    if method != allowed:
        raise Problem("method-not-allowed", f"Use {allowed}", {"allow": allowed})


def _asks_for_ready(body: bytes) -> bool:
    """Whether only models that answer are asked for, by `{"ready": true}`."""
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Problem("invalid-json", f"Line {error.lineno}, column {error.colno}: {error.msg}") from None
    return isinstance(document, dict) and document.get("ready") is True


def _given_id(headers: Mapping[str, str]) -> str | None:
    """The gateway's id (a bare attribute, or the inference id), or a direct client's own."""
    attribute = headers.get(_ATTRIBUTES, "")
    for value in (
        attribute if "=" not in attribute else "",
        headers.get(_INFERENCE_ID, ""),
        headers.get("x-request-id", ""),
    ):
        if value and _REQUEST_ID.fullmatch(value):
            return value
    return None


def _new_ids() -> Iterator[str]:
    """Request ids of this process's own: UUIDs, random up to a place, and counted from there."""
    process = str(uuid.uuid4())[:24]
    # To format the whole number would cost more than the rest of an answer's headers.
    tails = [f"{number:03x}" for number in range(16**3)]
    for number in itertools.count(int.from_bytes(os.urandom(4))):
        head = f"{process}{number:09x}"
        for tail in tails:
            yield head + tail


def _request_id(exchange: Exchange) -> str:
    return _given_id(exchange.head.headers) or next(_ids)


def _timeout(headers: Mapping[str, str], most: float) -> float:
    """For how many seconds a client waits."""
    text = headers.get(_TIMEOUT)
    if text is None:
        return most
    if not text.isascii() or not text.isdigit():
        raise Problem("invalid-request", f"{_TIMEOUT} is {shown(text)}; it must be milliseconds")
    return min(most, int(text[:12]) / 1000)


def _rows(batch: Batch, names: tuple[str, ...], start: int, end: int) -> Arrays:
    outputs = batch.outputs
    if not end:
        return outputs
    return {name: outputs[name][start:end] for name in names}


def _together(codec: Codec, batch: Batch) -> Sequence[bytes]:
    """The answers to all requests of a batch, if they are such that this is simple, and are short."""
    shape = next(iter(batch.outputs.values())).shape
    rows = shape[0] if shape else 1
    return () if _size(batch.outputs) > rows * _WRITTEN_BYTES else codec.rows(batch.outputs) or ()


def _size(arrays: Arrays) -> int:
    """How many bytes the values have, roughly as many as they will have as text."""
    size = 0
    for array in arrays.values():
        size += array.nbytes if array.dtype != object else sum(map(len, array.ravel()))
    return size


def _now(call: Callable[..., object], *arguments: object) -> None:
    call(*arguments)


def _internal() -> Problem:
    return Problem("internal", "The server could not answer this request")


_ids = _new_ids()


def _lines(headers: Mapping[str, str], request_id: str) -> bytes:
    if headers is _DOCUMENT:
        return b"content-type: application/json\r\nx-request-id: %b\r\n" % request_id.encode()
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{lines}x-request-id: {request_id}\r\n".encode("latin-1", "replace")
