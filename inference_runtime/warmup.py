"""How a model is best run on this machine, measured before its first client: the batcher's `Plan`.

What is found out, each by running the model on its own sample (or on plain values, where it has none):

    threads     whether one thread or one for each core computes a row faster
    batches     whether rows may be joined at all: together they must give what they give alone
    lengths     whether rows of different lengths may be, too, where the manifest has a `padding`
    size        from which number of rows on a larger batch is no faster a row
    inline      whether that batch is short enough for the event loop's own thread
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from inference_runtime.batching import Plan
from inference_runtime.errors import Problem
from inference_runtime.manifest import Artifact, TensorSpec
from inference_runtime.model import SAMPLE, Arrays, Engine, Model
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
#: A smaller batch is as good as the best one if its rows cost at most this much more.
_NEARLY = 1.06
#: A batch that takes longer, in seconds, would keep the loop from its other clients.
_INLINE_SECONDS = 0.01
#: What takes less is not worth a second thread, whatever a measurement so short says.
_SHORT_SECONDS = 0.0002
#: Each measurement ends after so many seconds and runs, or after so many seconds where the runs are long.
_MEASURE_SECONDS, _RUNS = 0.04, 5
_LONG_SECONDS = 0.4
#: A second session, to compare, is opened of artifacts up to this size, in bytes.
_COMPARED_BYTES = 512 * 1024 * 1024


def load(artifact: Artifact, engine: Engine, max_batch: int = MAX_BATCH) -> tuple[Model, Plan]:
    """Load a model and find out how to run it. `max_batch` 1 joins nothing.

    Raises:
        ArtifactError: its files do not make a model that answers.
    """
    started = perf_counter()
    model = Model(artifact, engine)
    try:
        plan, threads = _plan(model, artifact, engine, max_batch)
    except Problem as problem:
        # A handler may refuse made-up values; then nothing is known, and nothing is assumed.
        plan, threads = Plan(), engine.threads
        logger.warning("model not measured", extra={"model": model.manifest.name, "reason": problem.detail})
    logger.info(
        "model warmed up",
        extra={
            "model": model.manifest.name,
            "version": model.manifest.version,
            "threads": threads or os.cpu_count(),
            "batching": plan.max_batch > 1,
            "max_batch": plan.max_batch,
            "padding": plan.padding is not None,
            "inline": plan.inline,
            "batch_ms": {rows: round(seconds * 1000, 3) for rows, seconds in plan.seconds},
            "load_ms": round((perf_counter() - started) * 1000),
        },
    )
    return model, plan


def _plan(model: Model, artifact: Artifact, engine: Engine, max_batch: int) -> tuple[Plan, int]:
    # What a handler does with made-up values says nothing of what it does with a client's.
    joinable = _joinable(model) and (model.graph_alone or SAMPLE in artifact.manifest.files)
    rows = _rows(model, artifact, MAX_BATCH if joinable else 1)
    names = tuple(spec.name for spec in model.manifest.outputs)

    def run(inputs: Arrays) -> Arrays:
        return model.infer(inputs, names)

    one = _cut(rows, 0, 1) if joinable else rows
    threads = _threads(model, artifact, engine, lambda: run(one))
    timed = [(1, _seconds(lambda: run(one)))]
    if joinable and max_batch > 1 and _agree(run, rows):
        timed += _larger(run, rows, timed[0][1], max_batch)
    short = [(size, seconds) for size, seconds in timed if seconds <= _INLINE_SECONDS]
    inline = bool(short) and model.graph_alone and _fixed(model)
    chosen = _worth(short if inline else timed)
    padding = _padding(run, model, rows, chosen) if len(chosen) > 1 else None
    return Plan(chosen[-1][0], inline, tuple(chosen), padding), threads


def _padding(
    run: Callable[[Arrays], Arrays], model: Model, rows: Arrays, chosen: list[tuple[int, float]]
) -> Padding | None:
    """How requests of different lengths are joined, if that pays, and they then give what they give alone."""
    padding = Padding.of(model.manifest)
    if padding is None:
        return None
    (_, alone), (size, joined) = chosen[0], chosen[-1]
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
            _same(padding.cut(together, index, index + 1, length, longest), run(inputs))
    except (Problem, ValueError) as error:
        logger.info("joining of lengths off", extra={"model": model.manifest.name, "reason": str(error)})
        return None
    return padding


def _worth(timed: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The sizes up to that from which on a row gets no cheaper; one row alone if none makes it much so."""
    best = min(seconds / size for size, seconds in timed)
    if timed[0][1] < best * _WORTH:
        return timed[:1]
    last = next(index for index, (size, seconds) in enumerate(timed) if seconds / size <= best * _NEARLY)
    return timed[: last + 1]


def _threads(model: Model, artifact: Artifact, engine: Engine, run: Callable[[], object]) -> int:
    """One thread, or as many as the engine has: whichever is faster. The model keeps that session."""
    large = sum(file.size for file in artifact.manifest.files.values()) > _COMPARED_BYTES
    if engine.threads or os.cpu_count() == 1 or not model.on_cpu or large:
        return engine.threads
    many, one = _seconds(run), float("inf")
    other = model.reopened(replace(engine, threads=1))
    for _ in range(2):
        other = model.exchange(other)
        one = min(one, _seconds(run))
        other = model.exchange(other)
        many = min(many, _seconds(run))
    if many > _SHORT_SECONDS and many * 1.1 < one:
        return 0
    model.exchange(other)
    return 1


def _larger(
    run: Callable[[Arrays], Arrays], rows: Arrays, alone: float, most: int
) -> Iterator[tuple[int, float]]:
    """Batches of twice the rows each, until twice in a row that makes a row no cheaper."""
    best, vain, size = alone, 0, 2
    while size <= most and vain < 2:
        batch = _cut(rows, 0, size)
        seconds = _seconds(lambda: run(batch))  # noqa: B023 (called at once)
        yield size, seconds
        vain = vain + 1 if seconds / size > best / _NEARLY else 0
        best = min(best, seconds / size)
        size *= 2


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of several runs: what disturbs a run only ever makes it longer."""
    run()
    shortest, begun = float("inf"), perf_counter()
    for count in range(1, 51):
        started = perf_counter()
        run()
        ended = perf_counter()
        shortest = min(shortest, ended - started)
        if ended - begun > (_MEASURE_SECONDS if count >= _RUNS else _LONG_SECONDS):
            break
    return shortest


def _joinable(model: Model) -> bool:
    """Whether the signature leaves the first axis of everything to the client."""
    return all(spec.shape[:1] == (-1,) for spec in (*model.manifest.inputs, *model.manifest.outputs))


def _fixed(model: Model) -> bool:
    """Whether rows always have the size that was measured."""
    return all(-1 not in spec.shape[1:] for spec in model.manifest.inputs)


def _agree(run: Callable[[Arrays], Arrays], rows: Arrays) -> bool:
    """Whether rows give together what they give alone."""
    count = min(3, min(len(array) for array in rows.values()))
    alone = [run(_cut(rows, index, index + 1)) for index in range(count)]
    try:
        together = run(_cut(rows, 0, count))
        _same(together, {name: np.concatenate([outputs[name] for outputs in alone]) for name in together})
    except (Problem, ValueError) as error:
        logger.info("batching off", extra={"reason": str(error)})
        return False
    return True


def _same(together: Arrays, alone: Arrays) -> None:
    """Raises ValueError where rows answer otherwise together than alone."""
    for name, found in together.items():
        if found.shape != alone[name].shape or not _close(found, alone[name]):
            raise ValueError(f"output {name!r}: rows answer otherwise together than alone")


def _close(found: Array, expected: Array) -> bool:
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    tolerance = 1e-2 if found.dtype.itemsize == 2 else 1e-3
    largest = float(np.max(np.abs(expected), initial=0))
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance * 0.1 * largest, equal_nan=True))


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
