"""Requests of one model joined into batches, and run where that costs least.

There is no timer. Requests that the event loop has read together are joined; while the engine is busy, more
of them queue and form the next batch; an idle engine runs what there is. So a lone request pays for one
further look at the sockets, and for none if nobody else has asked since its client's last; and load makes its
own batches. Only where the last batch had more requests than have come yet does the loop look again, for a
fraction of a row's time: clients that were answered together ask again together.

What the warm-up has measured (`Plan`) decides the rest: short batches run inline, on the loop's own thread,
where nothing is handed over; long ones on an engine's thread. There are several engines where there are
several GPUs, one for each; and on a CPU where batches beside one another, on a core each, are through sooner
than one after the other on all cores. There, one that has the machine to itself still gets all of it.

The loop's thread submits and answers; only `_Engine` runs elsewhere.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from mypy_extensions import mypyc_attr

from inference_runtime.errors import Problem
from inference_runtime.padding import Padding

if TYPE_CHECKING:
    from inference_runtime.tensors import Array

logger = logging.getLogger(__name__)

Arrays = dict[str, "Array"]


class Plan(NamedTuple):
    """How a model is run: what its warm-up chose."""

    #: Rows that are run at once, at most; 1 where batches do not pay, or change answers.
    max_batch: int = 1
    #: Rows that are run on the loop's thread, at most; what is more is an engine's.
    inline: int = 0
    #: Measured seconds of a batch, by its rows, ascending.
    seconds: tuple[tuple[int, float], ...] = ((1, 0.0),)
    #: Requests of different lengths are joined like this; None where they are not.
    padding: Padding | None = None
    #: So many batches, running or waiting, are run by all engines, beside one another; fewer in turns.
    abreast: float = inf
    #: Measured seconds from one full batch to the next where they are; 0 where they never are.
    pace: float = 0.0
    #: Of the engine, when it runs one batch; 0 is one for each core.
    threads: int = 0
    #: Whether other processes are to run the model too, each with one thread: here, only the loop's thread
    #: ever would.
    processes: bool = False

    def expected(self, rows: int) -> float:
        """Seconds that `rows` take, in batches of `max_batch`."""
        return ceil(rows / self.max_batch) * (self.pace or self.seconds[-1][1])


@dataclass(frozen=True, slots=True)
class Limits:
    """What one model's requests may take."""

    #: Requests that wait.
    queue: int = 1024
    #: For which an idle engine lets a batch grow while requests keep arriving.
    delay_seconds: float = 0.001
    #: A batch that runs longer has wedged its engine.
    wedged_seconds: float = 60.0


#: Of the time that one row takes, what a batch may wait for as many requests as the last one had.
_LINGER = 0.25

#: A model's inference, as `Model.infer_joined`: from the inputs of several requests to the outputs asked for,
#: with the rows of all of them in order, and whether it is one of those that run beside one another. Raises
#: Problem.
Infer = Callable[[Sequence[Arrays], Sequence[str], bool], Arrays]


class Batch:
    """What a batch gave: outputs with the rows of all its requests."""

    __slots__ = ("ended", "memo", "outputs", "started")

    def __init__(self, outputs: Arrays, started: float, ended: float) -> None:
        self.outputs = outputs
        #: By `time.perf_counter`, as all times here.
        self.started = started
        self.ended = ended
        #: For whoever writes the answers: what is made once for all of them.
        self.memo: Any = None


class Client(Protocol):
    """Who waits for an answer."""

    #: Nobody, any more. Read by any thread.
    gone: bool
    #: Nothing else came with its request.
    single: bool


@mypyc_attr(allow_interpreted_subclasses=True)
class Job:
    """One inference request in a batcher. Whoever submits it extends it by `finish` and `fail`."""

    __slots__ = ("client", "deadline", "finished", "inputs", "key", "outputs", "queued", "rows")

    def __init__(self, inputs: Arrays, outputs: tuple[str, ...], client: Client, deadline: float) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.client = client
        #: When nobody waits for the answer any more.
        self.deadline = deadline
        self.finished = False
        self.queued = 0.0
        #: Along the first axis. Requests are joined where they agree on every other.
        self.rows: int
        self.key: Any
        shapes = [array.shape for array in inputs.values()]
        self.rows = shapes[0][0] if shapes and shapes[0] else 1
        if len(shapes) == 1:
            self.key = shapes[0][1:]
        elif any(shape[:1] != (self.rows,) for shape in shapes):
            # Inputs that disagree about their rows would take a neighbour's.
            self.key = self
        else:
            self.key = tuple([shape[1:] for shape in shapes])

    def finish(self, batch: Batch, start: int, end: int) -> None:
        """Take the answer: these rows of a batch, or all of it where `end` is 0.

        Either this or `fail` is called, once, on the loop's thread; they must not raise.
        """
        raise NotImplementedError

    def fail(self, problem: Problem) -> None:
        """Take what is wrong instead."""
        raise NotImplementedError


#: Where a request's answer is: in a batch, from one row to another; or why there is none.
Outcome = tuple[Batch, int, int] | Problem


class Batcher:
    """One model's queue and engines. Every method is for the loop's thread, except `healthy`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lanes: Sequence[Infer],
        plan: Plan,
        limits: Limits,
        name: str,
        ran: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """Each of `lanes` gets an engine. The first is called on the loop's thread too; `ran` is told every
        batch's rows, on the loop's.
        """
        self.plan = plan
        #: Whether other processes have clients too, so that a batch here has one core.
        self.beside = False
        self._loop = loop
        self._ran = ran
        self._closing = False
        #: As many requests as the last batch had are likely to come again, and then are worth a moment: a
        #: fraction of what a row costs by itself. A lone client's never wait.
        self._crowd = 0
        #: Whose request ran last, if it ran alone.
        self._lone: Client | None = None
        self._linger = min(limits.delay_seconds, _LINGER * plan.seconds[0][1]) if plan.max_batch > 1 else 0.0
        self.settle(limits)
        self._queue: deque[Job] = deque()
        self._lock = threading.Lock()
        #: The gathering that is under way: since when, and how many requests it had found.
        self._gathering: float | None = None
        self._gathered = 0
        self._engines = [_Engine(self, infer, f"{name}-{index}") for index, infer in enumerate(lanes)]
        #: Those that wait to be woken.
        self._idle = list(self._engines)

    @property
    def healthy(self) -> bool:
        """Whether no batch has run for longer than it may."""
        since = [engine.busy_since for engine in self._engines]
        latest = perf_counter() - self._limits.wedged_seconds
        return all(each is None or each > latest for each in since)

    def settle(self, limits: Limits) -> None:
        """Keep to these limits from now on."""
        self._limits = limits
        #: So many may wait without a thought.
        self._easy = min(self.plan.max_batch, limits.queue)

    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def submit(self, job: Job) -> None:
        """Queue a request, or refuse it at once if there is no room, or no hope to answer in time.

        Raises:
            Problem: throttled, or overloaded; both say when to try again.
        """
        job.queued = now = perf_counter()
        if self.plan.padding and job.key is not job:
            job.key = self.plan.padding.key(job.inputs) or job.key
        waiting = len(self._queue)
        if waiting >= self._easy or len(self._idle) < len(self._engines):
            self._admit(job, now, waiting)
        self._queue.append(job)
        if self._gathering is None and self._idle:
            if not waiting and job.client is self._lone and job.client.single:
                self._run(now)
            else:
                self._begin(now, 0)

    def expire(self, now: float) -> None:
        """Answer the requests whose deadline has passed, whether they wait or run. Called every second."""
        with self._lock:
            running = [job for engine in self._engines for job in engine.running]
            late = [job for job in (*self._queue, *running) if job.deadline < now]
        for job in late:
            _finish(job, _late())

    def close(self) -> None:
        """End the engines once they have run what is queued. Nothing is submitted any more."""
        self._closing = True
        self._end()

    # On the loop's thread.

    def _begin(self, now: float, gathered: int) -> None:
        self._gathering = now
        self._gathered = gathered
        self._loop.call_soon(self._gather)

    def _admit(self, job: Job, now: float, waiting: int) -> None:
        wait = self.plan.expected(waiting)
        retry = {"retry-after": str(max(1, ceil(wait)))}
        if waiting >= self._limits.queue:
            raise Problem("throttled", f"{waiting} requests wait for this model; try again", retry)
        if now + wait > job.deadline or not self.healthy:
            raise Problem("overloaded", "The model could not answer in time; try again", retry)

    def _gather(self) -> None:
        """Look at the sockets again while that brings requests, then let them run."""
        found = len(self._queue)
        now = perf_counter()
        assert self._gathering is not None
        waited = now - self._gathering
        if found < self.plan.max_batch and (
            (self._gathered < found and waited < self._limits.delay_seconds)
            or (found < self._crowd and waited < self._linger)
        ):
            self._gathered = found
            self._loop.call_soon(self._gather)
            return
        self._gathering = None
        if self._queue:
            self._run(now)

    def _run(self, now: float) -> None:
        """Run what is queued: here, if it is short, or by whoever is idle."""
        found = len(self._queue)
        busy = len(self._engines) - len(self._idle)
        together = self.crowded()
        if together or busy or max(min(found, self.plan.max_batch), self._queue[0].rows) > self.plan.inline:
            wanted = ceil(found / self.plan.max_batch) if together else 1 - busy
            for _ in range(min(wanted, len(self._idle))):
                self._idle.pop().wake()
            return
        batch, late = self.take(now, self.plan.inline)
        self._answer(batch, self._engines[0].outcomes(batch, beside=self.beside) if batch else (), late)
        if self._queue and self._gathering is None:
            # Other connections, and this batch's answers, come before the next.
            self._begin(now, len(self._queue))

    def _answer(self, batch: Sequence[Job], outcomes: Sequence[Outcome], late: Sequence[Job]) -> None:
        """Give everyone what became of their request."""
        if batch:
            self._crowd = len(batch)
            self._lone = batch[0].client if len(batch) == 1 else None
            self._ran(sum([job.rows for job in batch]))
        for job, outcome in zip(batch, outcomes, strict=True):
            _finish(job, outcome)
        for job in late:
            _finish(job, _late())

    def _rest(
        self,
        engine: "_Engine",
        batch: Sequence[Job] = (),
        outcomes: Sequence[Outcome] = (),
        late: Sequence[Job] = (),
    ) -> None:
        """An engine has found nothing after this to run. Only here is it certain that nothing has come."""
        self._answer(batch, outcomes, late)
        self._idle.append(engine)
        if self._queue and self._gathering is None:
            self._begin(perf_counter(), 0)
        elif self._closing:
            self._end()

    def _end(self) -> None:
        if not self._queue:
            for engine in self._idle:
                engine.close()

    # On the loop's thread, or the engine's.

    def crowded(self) -> bool:
        """Whether enough runs and waits to be run by all engines."""
        busy = len(self._engines) - len(self._idle)
        return busy + ceil(len(self._queue) / self.plan.max_batch) >= self.plan.abreast

    def take(self, now: float, most: int) -> tuple[list[Job], list[Job]]:
        """The next batch of at most so many rows, in the order of arrival, and the requests that came late.

        Requests that nobody waits for are dropped. Those of another shape stay where they are.
        """
        queue = self._queue
        batch: list[Job] = []
        late: list[Job] = []
        passed: list[Job] = []
        rows = 0
        with self._lock:
            while queue and rows < most:
                job = queue.popleft()
                if job.finished or job.client.gone:
                    job.finished = True
                elif job.deadline < now:
                    late.append(job)
                elif batch and job.key != batch[0].key:
                    passed.append(job)
                elif batch and rows + job.rows > most:
                    passed.append(job)
                    break
                else:
                    batch.append(job)
                    rows += job.rows
            queue.extendleft(reversed(passed))
        return batch, late


class _Engine:
    """One lane of a model, and its thread, which runs long batches one after the other."""

    def __init__(self, batcher: Batcher, infer: Infer, name: str) -> None:
        self._batcher = batcher
        self._infer = infer
        self._name = name
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._worker: threading.Thread | None = None
        #: What runs, and since when.
        self.running: Sequence[Job] = ()
        self.busy_since: float | None = None

    def wake(self) -> None:
        """Run what is queued."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._loop, name=f"engine-{self._name}", daemon=True)
            self._worker.start()
        self._wakes.put(True)

    def close(self) -> None:
        self._wakes.put(False)

    def outcomes(self, batch: Sequence[Job], *, beside: bool) -> list[Outcome]:
        """What becomes of each request. If they fail together each is tried by itself: one is to blame."""
        try:
            return self._infer_all(batch, beside)
        except Exception as error:
            if len(batch) > 1:
                return [self.outcomes([job], beside=beside)[0] for job in batch]
            if isinstance(error, Problem):
                return [error]
            logger.exception("inference failed")
            return [Problem("model-error", "The model could not answer this request")]

    def _infer_all(self, jobs: Sequence[Job], beside: bool) -> list[Outcome]:
        started = perf_counter()
        first = jobs[0]
        if len(jobs) == 1:
            outputs = self._infer((first.inputs,), first.outputs, beside)
            return [(Batch(outputs, started, perf_counter()), 0, 0)]
        names = first.outputs
        for job in jobs:
            if job.outputs is not names and job.outputs != names:
                names = tuple(dict.fromkeys([name for job in jobs for name in job.outputs]))
                break
        padding, lengths = self._batcher.plan.padding, [0]
        if padding:
            lengths = [padding.length(job.inputs) for job in jobs]
        longest = max(lengths)
        requests = [job.inputs for job in jobs]
        if padding and min(lengths) < longest:
            requests = [padding.join(requests, longest)]
        else:
            padding = None
        outputs = self._infer(requests, names, beside)
        rows = sum([job.rows for job in jobs])
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            raise ValueError(f"the outputs have not the {rows} rows of the inputs")
        batch = Batch(outputs, started, perf_counter())
        outcomes: list[Outcome] = []
        start = 0
        for job in jobs:
            end = start + job.rows
            if padding and padding.cuts:
                part = padding.cut(outputs, start, end, lengths[len(outcomes)], longest)
                outcomes.append((Batch(part, batch.started, batch.ended), 0, 0))
            else:
                outcomes.append((batch, start, end))
            start = end
        return outcomes

    def _loop(self) -> None:
        # A loop that is closed is a process that ends: nobody is left to answer.
        with contextlib.suppress(RuntimeError):
            while self._wakes.get():
                self._run()

    def _run(self) -> None:
        """Run what is queued, until there is nothing more."""
        batcher = self._batcher
        call = batcher._loop.call_soon_threadsafe
        batch, late = batcher.take(perf_counter(), batcher.plan.max_batch)
        while batch or late:
            self.running, self.busy_since = batch, perf_counter()
            outcomes = self.outcomes(batch, beside=batcher.crowded()) if batch else []
            self.running, self.busy_since = (), None
            ran = batch, outcomes, late
            batch, late = batcher.take(perf_counter(), batcher.plan.max_batch)
            if batch or late:
                call(batcher._answer, *ran)
            else:
                # At once with the answers, so that who asks again finds this engine at rest.
                call(batcher._rest, self, *ran)
                return
        call(batcher._rest, self)


def _finish(job: Job, outcome: Outcome) -> None:
    if job.finished:
        return
    job.finished = True
    if type(outcome) is tuple:
        batch, start, end = outcome
        job.finish(batch, start, end)
    else:
        job.fail(cast(Problem, outcome))


def _late() -> Problem:
    return Problem("timeout", "The request's deadline passed before the model could answer")
