"""How a model is best run on this machine, measured before its first client: the batcher's `Plan`.

What is found out, each by running the model on its own sample (or on plain values, where it has none):

    threads     whether one thread or one for each core computes a row, or else a batch, faster
    batches     whether rows may be joined at all: together they must give what they give alone
    lengths     whether rows of different lengths may be, too, where the manifest has a `padding`
    size        from which number of rows on a larger batch is no faster a row
    lanes       whether batches run beside one another, on a core each, or in turns on all
    processes   whether the loops of several processes run them instead, with one thread each
    inline      how many rows are short enough for the event loop's own thread
    buckets     on a GPU, every size of batch that will be run is run once
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from inference_runtime.batching import Plan
from inference_runtime.errors import Problem
from inference_runtime.manifest import Artifact, TensorSpec
from inference_runtime.model import SAMPLE, Arrays, Engine, Model, usable_cores
from inference_runtime.padding import Padding
from inference_runtime.tensors import DTYPES, Array

logger = logging.getLogger(__name__)

#: The largest batch that is tried.
MAX_BATCH = 64
#: Joining must make a row at least this much cheaper: it costs the first of a batch time, and fairness.
_WORTH = 1.2
#: The same where requests of different lengths are joined, some of them padded to nearly twice theirs.
_WORTH_PADDED = 1.5
#: The length of made-up requests for a model whose requests may be padded.
_LENGTH = 16
#: What each batch costs besides the engine, in seconds, whatever its size.
_BATCH_SECONDS = 0.0001
#: A smaller batch is as good as the best one if its rows cost at most this much more.
_NEARLY = 1.06
#: A batch that takes longer, in seconds, would keep the loop from its other clients.
_INLINE_SECONDS = 0.01
#: What takes less is not worth a second thread, whatever a measurement so short says.
_SHORT_SECONDS = 0.0002
#: So many times as fast is faster; less is a tie, which a batch of so many rows decides.
_FASTER, _TIED_ROWS = 1.1, 16
#: Sessions are compared so often, in turns: what disturbs the machine meanwhile disturbs both.
_COMPARISONS = 3
#: Of a GPU's batches, as the loop can read the next requests meanwhile.
_INLINE_GPU_SECONDS = 0.0005
#: Each measurement ends after so many seconds and runs, or after so many seconds where the runs are long.
_MEASURE_SECONDS, _RUNS = 0.04, 5
_LONG_SECONDS = 0.4
#: The sizes are measured one after the other, again and again for so many seconds and at most so many times:
#: what disturbs the machine for a moment then disturbs all of them.
_SIZES_SECONDS, _PASSES, _PASS_SECONDS = 0.25, 20, 0.005
#: Shorter batches, in seconds, are run inline rather than beside one another, which costs handing over.
_LANE_SECONDS = 0.002
#: They are unless that takes so many times as long, timed so often. The machine has nothing else to do then;
#: under load, clients and the event loop take a core now and then, for which a batch that has all cores waits
#: at each of its operators.
_SLOWER_LANES, _TURNS = 1.1, 5
#: A second session, to compare, is opened of artifacts up to this size, in bytes.
_COMPARED_BYTES = 512 * 1024 * 1024


def load(
    artifact: Artifact,
    engine: Engine,
    max_batch: int = MAX_BATCH,
    *,
    twice: bool = True,
    processes: bool = False,
) -> tuple[list[Model], Plan]:
    """Load a model, on each GPU where there are several, and find out how to run it.

    Args:
        max_batch: rows that may be joined, at most; 1 joins nothing.
        twice: whether the graph may stay in memory a second time, where batches beside one another want that.
        processes: whether other processes may run the model too.

    Returns:
        A model for each lane that runs batches, which is the same one where lanes share a CPU; and the plan.

    Raises:
        ArtifactError: its files do not make a model that answers.
    """
    started = perf_counter()
    model = Model(artifact, engine)
    models = [model]
    try:
        found, lanes = _measured(model, artifact, engine, max_batch, twice, processes)
        models *= lanes
    except Problem as problem:
        # A handler may refuse made-up values; then nothing is known, and nothing is assumed.
        found = Plan(threads=engine.threads)
        logger.warning("model not measured", extra={"model": model.manifest.name, "reason": problem.detail})
    if model.on_gpu:
        from inference_runtime import cuda

        models += [_copy(artifact, replace(engine, gpu=gpu), found) for gpu in range(1, cuda.devices())]
        if len(models) > 1:
            found = found._replace(inline=0, abreast=1, pace=found.seconds[-1][1] / len(models))
    logger.info(
        "model warmed up",
        extra={
            "model": model.manifest.name,
            "version": model.manifest.version,
            "threads": found.threads or usable_cores(),
            "batching": found.max_batch > 1,
            "max_batch": found.max_batch,
            "padding": found.padding is not None,
            "inline": found.inline,
            "lanes": len(models),
            "processes": found.processes,
            "pace_ms": round(found.pace * 1000, 3),
            "batch_ms": {rows: round(seconds * 1000, 3) for rows, seconds in found.seconds},
            "load_ms": round((perf_counter() - started) * 1000),
        },
    )
    return models, found


def _copy(artifact: Artifact, engine: Engine, plan: Plan) -> Model:
    """The model on another GPU, where every size that `plan` has was run once."""
    model = Model(artifact, engine)
    if model.bind(plan.max_batch) >= plan.max_batch:
        # Each size was run when it was captured.
        return model
    rows = _rows(model, artifact, plan.max_batch)
    for size, _ in plan.seconds:
        model.infer_joined((_cut(rows, 0, size),), [spec.name for spec in model.manifest.outputs])
    return model


def _measured(
    model: Model, artifact: Artifact, engine: Engine, max_batch: int, twice: bool, processes: bool
) -> tuple[Plan, int]:
    """The plan, and the lanes."""
    # What a handler does with made-up values says nothing of what it does with a client's.
    joinable = _joinable(model) and (model.graph_alone or SAMPLE in artifact.manifest.files)
    rows = _rows(model, artifact, MAX_BATCH if joinable else 1)
    names = tuple(spec.name for spec in model.manifest.outputs)
    # A batch has no more rows than have room where it is bound.
    max_batch = model.bind(max_batch) or max_batch

    def run(inputs: Arrays) -> Arrays:
        return model.infer_joined((inputs,), names)

    one = _cut(rows, 0, 1) if joinable else rows
    joined = joinable and max_batch > 1 and _agree(run, rows, coarse=model.on_gpu)
    several = _cut(rows, 0, min(_TIED_ROWS, max_batch)) if joined else one
    # What a handler keeps, or how long a row of no certain size takes, is not known.
    inline = model.graph_alone and _fixed(model)
    processes = processes and inline and model.on_cpu
    threads, narrow = _threads(model, artifact, engine, lambda: run(one), lambda: run(several))
    short = _INLINE_GPU_SECONDS if model.on_gpu else _INLINE_SECONDS

    def apart(inputs: Arrays) -> Arrays:
        return model.infer_joined((inputs,), names, True)

    processes = processes and (threads == 1 or narrow is not None)
    if processes:
        # Where there are several, each has one thread.
        model.share(narrow)
        processes = _seconds(lambda: apart(one)) <= short
    timer = apart if processes else run
    timed = _sizes(timer, rows, max_batch) if joined else [(1, _seconds(lambda: timer(one)))]
    processes = processes and timed[0][1] <= short
    if processes:
        # Two processes' batches are through sooner than one that is a little cheaper, and longer.
        timed = [(size, seconds) for size, seconds in timed if seconds <= short]
        if threads != 1:
            model.exchange(model.reopened(usable_cores(), awake=True))
    else:
        model.share(None)
    found = plan(timed, short if inline else 0)._replace(threads=threads, processes=processes)
    if found.max_batch > 1:
        found = found._replace(padding=_padding(run, model, rows, found))
    lanes = 1
    # What is never run inline is handed over anyway.
    enough = _LANE_SECONDS if found.inline else _SHORT_SECONDS
    shared = narrow is not None and not processes and (twice or threads == 1)
    if shared and found.seconds[-1][1] >= enough:
        batch = _cut(rows, 0, found.max_batch) if joinable else rows
        model.share(narrow)
        lanes, alone, pace = _lanes(lambda beside: model.infer_joined((batch,), names, beside))
        if lanes > 1:
            # So many that these cores are no longer better used by one batch that has all of them.
            found = found._replace(abreast=max(2, ceil(lanes * pace / alone)), pace=pace)
        else:
            model.share(None)
    return found, lanes


def _lanes(run: Callable[[bool], object]) -> tuple[int, float, float]:
    """How many batches run beside one another; seconds from one to the next in turns; and beside another."""
    lanes = usable_cores()
    alone, together = [], []
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(run, [True] * lanes))
        for _ in range(_TURNS):
            started = perf_counter()
            for _ in range(lanes):
                run(False)
            between = perf_counter()
            list(pool.map(run, [True] * lanes))
            alone.append(between - started)
            together.append(perf_counter() - between)
    if median(together) > median(alone) * _SLOWER_LANES:
        lanes = 1
    return lanes, median(alone) / lanes, median(together) / lanes


def _padding(run: Callable[[Arrays], Arrays], model: Model, rows: Arrays, found: Plan) -> Padding | None:
    """How requests of different lengths are joined, if that pays, and they then give what they give alone."""
    padding = Padding.of(model.manifest)
    if padding is None:
        return None
    (_, alone), (size, joined) = found.seconds[0], found.seconds[-1]
    longest = padding.length(rows)
    # As different as lengths that share a batch can be.
    lengths = (longest, longest - 1, longest // 2 + 1)
    try:
        if alone * size < joined * _WORTH_PADDED:
            raise ValueError("padding would cost what a batch saves")
        if longest < 2:
            raise ValueError(
                f"the warm-up request's length is {longest}; it takes 2 to see what padding does"
            )
        apart = [
            padding.shorter(_cut(rows, index, index + 1), length) for index, length in enumerate(lengths)
        ]
        together = run(padding.join(apart, longest))
        for index, (inputs, length) in enumerate(zip(apart, lengths, strict=True)):
            answer = padding.cut(together, index, index + 1, length, longest)
            _same(answer, run(inputs), coarse=model.on_gpu)
    except (Problem, ValueError) as error:
        logger.info("joining of lengths off", extra={"model": model.manifest.name, "reason": str(error)})
        return None
    return padding


def plan(timed: Sequence[tuple[int, float]], short: float) -> Plan:
    """What measurements say.

    Args:
        timed: seconds of a batch, by its rows, ascending from 1.
        short: what takes at most so many seconds is run on the loop's thread.
    """
    rows = [(seconds + _BATCH_SECONDS) / size for size, seconds in timed]
    last, best = 0, min(rows)
    if rows[0] >= best * _WORTH:
        # Rows are joined up to where a row gets no cheaper.
        last = next(index for index, row in enumerate(rows) if row <= best * _NEARLY)
    chosen = tuple(timed[: last + 1])
    inline = max((size for size, seconds in chosen if seconds <= short), default=0)
    return Plan(chosen[-1][0], inline, chosen)


def _threads(
    model: Model,
    artifact: Artifact,
    engine: Engine,
    row: Callable[[], object],
    batch: Callable[[], object],
) -> tuple[int, Any]:
    """One thread, or as many as the engine has: whichever is faster. The model keeps that session.

    Returns:
        The threads, and the session that has one, if it was opened.
    """
    large = artifact.manifest.size > _COMPARED_BYTES
    if engine.threads or usable_cores() == 1 or not model.on_cpu or large:
        return engine.threads, None
    narrow = model.reopened(1)
    many, one = _compared(model, narrow, row)
    if many > _SHORT_SECONDS and many < one * _FASTER and many * _FASTER > one:
        many, one = _compared(model, narrow, batch)
    if many > _SHORT_SECONDS and many * _FASTER < one:
        return 0, narrow
    model.exchange(narrow)
    return 1, narrow


def _compared(model: Model, other: Any, run: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a run by the model's session, and by another, in turns."""
    own = others = float("inf")
    for _ in range(_COMPARISONS):
        own = min(own, _seconds(run))
        other = model.exchange(other)
        others = min(others, _seconds(run))
        other = model.exchange(other)
    return own, others


def _sizes(run: Callable[[Arrays], Arrays], rows: Arrays, most: int) -> list[tuple[int, float]]:
    """Seconds of batches of twice the rows each, up to where twice in a row that made a row no cheaper."""
    batches: dict[int, Arrays] = {}
    shortest: dict[int, float] = {}
    best, vain, size, begun = float("inf"), 0, 1, perf_counter()
    while size <= most and vain < 2:
        batch = batches[size] = _cut(rows, 0, size)
        shortest[size] = _seconds(lambda: run(batch), _PASS_SECONDS)  # noqa: B023 (called at once)
        vain = vain + 1 if shortest[size] / size > best / _NEARLY else 0
        best = min(best, shortest[size] / size)
        size *= 2
    for _ in range(_PASSES):
        if perf_counter() - begun > _SIZES_SECONDS:
            break
        for size, batch in batches.items():
            started = perf_counter()
            run(batch)
            shortest[size] = min(shortest[size], perf_counter() - started)
    return list(shortest.items())


def _seconds(run: Callable[[], object], enough: float = _MEASURE_SECONDS) -> float:
    """The shortest of several runs, for `enough` seconds: what disturbs a run only ever makes it longer."""
    run()
    shortest, begun = float("inf"), perf_counter()
    for count in range(1, 51):
        started = perf_counter()
        run()
        ended = perf_counter()
        shortest = min(shortest, ended - started)
        if ended - begun > (enough if count >= _RUNS else _LONG_SECONDS):
            break
    return shortest


def _joinable(model: Model) -> bool:
    """Whether the signature leaves the first axis of everything to the client."""
    return all(spec.shape[:1] == (-1,) for spec in (*model.manifest.inputs, *model.manifest.outputs))


def _fixed(model: Model) -> bool:
    """Whether rows always have the size that was measured."""
    return all(-1 not in spec.shape[1:] for spec in model.manifest.inputs)


def _agree(run: Callable[[Arrays], Arrays], rows: Arrays, *, coarse: bool) -> bool:
    """Whether rows give together what they give alone."""
    count = min(3, min(len(array) for array in rows.values()))
    alone = [run(_cut(rows, index, index + 1)) for index in range(count)]
    try:
        together = run(_cut(rows, 0, count))
        expected = {name: np.concatenate([outputs[name] for outputs in alone]) for name in together}
        _same(together, expected, coarse=coarse)
    except (Problem, ValueError) as error:
        logger.info("batching off", extra={"reason": str(error)})
        return False
    return True


def _same(together: Arrays, alone: Arrays, *, coarse: bool) -> None:
    """Raises ValueError where rows answer otherwise together than alone."""
    for name, found in together.items():
        if found.shape != alone[name].shape or not _close(found, alone[name], coarse=coarse):
            raise ValueError(f"output {name!r}: rows answer otherwise together than alone")


def _close(found: Array, expected: Array, *, coarse: bool) -> bool:
    """`coarse` allows for TensorFloat-32, whose products have ten bits, on GPUs the default."""
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    tolerance = 1e-2 if coarse or found.dtype.itemsize == 2 else 1e-3
    share = 0.5 if coarse else 0.1
    largest = float(np.max(np.abs(expected), initial=0))
    return bool(
        np.allclose(found, expected, rtol=tolerance, atol=tolerance * share * largest, equal_nan=True)
    )


def _rows(model: Model, artifact: Artifact, count: int) -> Arrays:
    """Inputs of `count` rows: the artifact's sample over and over; else plain values, zeros for a handler."""
    if SAMPLE in artifact.manifest.files:
        content = (artifact.folder / SAMPLE).read_bytes()
        sample = model.codec.read({}, content, len(content)).requests[0]
        if count == 1:
            return dict(sample.inputs)
        return {name: np.resize(array, (count, *array.shape[1:])) for name, array in sample.inputs.items()}
    random = np.random.default_rng(0) if model.graph_alone else None
    free = _LENGTH if Padding.of(model.manifest) else 1
    return {spec.name: _values(spec, count, free, random) for spec in model.manifest.inputs}


def _values(spec: TensorSpec, count: int, free: int, random: np.random.Generator | None) -> Array:
    first = [count if length == -1 else length for length in spec.shape[:1]]
    shape = first + [free if length == -1 else length for length in spec.shape[1:]]
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        return np.full(shape, b"a" if random else b"", dtype)
    if random is None:
        return np.zeros(shape, dtype)
    values: Any = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
    return np.asarray(values).astype(dtype)


def _cut(rows: Arrays, start: int, end: int) -> Arrays:
    return {name: array[start:end] for name, array in rows.items()}
