"""Requests joined into batches: everyone gets their own rows, whoever their neighbours are."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_runtime.batching import Arrays, Batch, Batcher, Infer, Job, Limits, Plan
from inference_runtime.errors import Problem
from inference_runtime.manifest import Manifest, TensorSpec
from inference_runtime.padding import Padding


@dataclass
class Client:
    gone: bool = False
    single: bool = False


class Asked(Job):
    """A request that keeps what becomes of it."""

    __slots__ = ("answer", "problem")

    def __init__(
        self,
        inputs: Arrays,
        outputs: tuple[str, ...] = ("y",),
        client: Client | None = None,
        deadline: float = inf,
    ) -> None:
        super().__init__(inputs, outputs, client or Client(), deadline)
        self.answer: Arrays | None = None
        self.problem: Problem | None = None

    def finish(self, batch: Batch, start: int, end: int) -> None:
        assert self.answer is self.problem is None
        outputs = batch.outputs
        self.answer = {name: outputs[name][start : end or None] for name in self.outputs}

    def fail(self, problem: Problem) -> None:
        assert self.answer is self.problem is None
        self.problem = problem

    @property
    def done(self) -> bool:
        return self.finished and (self.answer is not None or self.problem is not None)


class Doubler:
    """y = 2 x, z = -x; keeps the rows of every batch, and what it was told of its company. 13 is refused, 500
    breaks it, and it may be held.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.beside: list[bool] = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
        self.beside.append(beside)
        self.free.wait(20)
        x = np.concatenate([request["x"] for request in requests])
        self.batches.append(len(x))
        if (x == 13).any():
            raise Problem("invalid-data", "13 is not allowed")
        if (x == 500).any():
            raise RuntimeError("broken")
        return {name: x * 2 if name == "y" else -x for name in outputs}


def x(*values: float) -> Arrays:
    return {"x": np.array(values, np.float32).reshape(-1, 1)}


def run(
    body: Callable[[Batcher], Awaitable[Any]],
    *lanes: Infer,
    inline: bool = True,
    max_batch: int = 8,
    limits: Limits | None = None,
    padding: Padding | None = None,
    abreast: float = inf,
) -> Any:
    async def main() -> Any:
        plan = Plan(max_batch, max_batch * inline, ((max_batch, 1.0),), padding, abreast)
        batcher = Batcher(asyncio.get_running_loop(), lanes, plan, limits or Limits(), "doubler")
        try:
            return await body(batcher)
        finally:
            batcher.close()

    return asyncio.run(main())


async def done(*jobs: Asked) -> None:
    end = time.monotonic() + 20
    while not all(job.done for job in jobs):
        assert time.monotonic() < end
        await asyncio.sleep(0)


both = pytest.mark.parametrize("inline", [True, False], ids=["inline", "thread"])


def test_a_client_that_asks_alone_again_and_again_is_answered_without_a_look_for_others() -> None:
    lone, other = Client(single=True), Client(single=True)

    async def body(batcher: Batcher) -> list[bool]:
        at_once = []
        for client in (lone, lone, other, lone, lone):
            batcher.submit(job := Asked(x(1), client=client))
            at_once.append(job.done)
            await done(job)
        lone.single = False  # one of several requests that came together
        batcher.submit(job := Asked(x(1), client=lone))
        at_once.append(job.done)
        await done(job)
        return at_once

    assert run(body, Doubler()) == [False, True, False, False, True, False]


def test_a_batch_is_told_that_other_processes_have_clients_too() -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        for beside in (False, True, False):
            batcher.beside = beside
            batcher.submit(job := Asked(x(1)))
            await done(job)

    run(body, model)
    assert model.beside == [False, True, False]


def test_who_asks_beside_a_client_that_was_alone_shares_its_batches() -> None:
    lone, other, doubler = Client(single=True), Client(single=True), Doubler()

    async def body(batcher: Batcher) -> None:
        for client in (lone, lone):
            batcher.submit(job := Asked(x(1), client=client))
            await done(job)
        for _ in range(3):
            jobs = [Asked(x(1), client=client) for client in (lone, other)]
            for job in jobs:
                batcher.submit(job)
            await done(*jobs)

    run(body, doubler)
    assert doubler.batches[-2:] == [2, 2]


@both
def test_requests_that_arrive_together_are_one_batch_and_each_gets_its_rows(inline: bool) -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        jobs = [Asked(x(1)), Asked(x(2, 3)), Asked(x(4), ("z",)), Asked(x(5), ("z", "y"))]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert [
            {name: array.ravel().tolist() for name, array in (job.answer or {}).items()} for job in jobs
        ] == [
            {"y": [2]},
            {"y": [4, 6]},
            {"z": [-4]},
            {"z": [-5], "y": [10]},
        ]

    run(body, model, inline=inline)
    assert model.batches == [5]


@both
@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.booleans()), min_size=1, max_size=20),
    st.integers(1, 12),
)
def test_every_answer_is_what_the_model_alone_would_give(
    inline: bool, asked: list[tuple[int, int, bool]], max_batch: int
) -> None:
    model = Doubler()
    random = np.random.default_rng(0)

    async def body(batcher: Batcher) -> None:
        jobs = []
        for rows, width, pause in asked:
            jobs.append(Asked({"x": random.standard_normal((rows, width)).astype(np.float32)}))
            batcher.submit(jobs[-1])
            if pause:
                await asyncio.sleep(0)
        await done(*jobs)
        for job in jobs:
            assert job.answer is not None
            np.testing.assert_array_equal(job.answer["y"], job.inputs["x"] * 2)

    run(body, model, inline=inline, max_batch=max_batch)
    assert all(rows <= max(max_batch, 5) for rows in model.batches)
    assert sum(model.batches) == sum(rows for rows, _, _ in asked)


@both
def test_a_bad_request_fails_alone(inline: bool) -> None:
    async def body(batcher: Batcher) -> None:
        jobs = [Asked(x(value)) for value in (1, 13, 2, 500, 3)]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert [job.problem.slug if job.problem else None for job in jobs] == [
            None, "invalid-data", None, "model-error", None,
        ]  # fmt: skip
        assert [job.answer["y"].tolist() for job in jobs if job.answer] == [[[2]], [[4]], [[6]]]

    run(body, Doubler(), inline=inline)


def test_rows_that_the_model_does_not_keep_apart_are_asked_for_one_by_one() -> None:
    async def body(batcher: Batcher) -> None:
        jobs = [Asked(x(1)), Asked(x(2))]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert [job.answer["y"].tolist() for job in jobs if job.answer] == [[1], [2]]

    run(body, lambda requests, outputs, beside: {"y": sum(request["x"].sum(0) for request in requests)})


def test_inputs_that_disagree_about_their_rows_take_none_of_a_neighbours() -> None:
    def pairs(requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
        [inputs] = requests
        assert len(inputs["a"]) == 3 or len(inputs["b"]) in (1, 2)
        return {"y": np.resize(inputs["a"] + inputs["b"].sum(), (len(inputs["a"]), 1))}

    async def body(batcher: Batcher) -> None:
        one, two = np.ones((1, 1)), np.full((2, 1), 10.0)
        jobs = [Asked({"a": one, "b": two}), Asked({"a": two, "b": one})]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert [job.answer["y"].tolist() for job in jobs if job.answer] == [[[21.0]], [[11.0], [11.0]]]

    run(body, pairs)


@both
def test_nothing_is_computed_for_a_client_that_has_left_or_for_a_deadline_that_has_passed(
    inline: bool,
) -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        gone, late, stays = Client(gone=True), Asked(x(2), deadline=0), Asked(x(3))
        for job in (Asked(x(1), client=gone), late, stays):
            batcher.submit(job)
        await done(late, stays)
        assert late.problem
        assert late.problem.slug == "timeout"

    run(body, model, inline=inline)
    assert model.batches == [1]


def test_a_busy_engine_lets_the_next_batch_grow_and_the_queue_is_bounded() -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        model.free.clear()
        first = Asked(x(1))
        batcher.submit(first)
        while batcher.waiting():
            await asyncio.sleep(0)
        queued = [Asked(x(value)) for value in range(2, 6)]
        for job in queued:
            batcher.submit(job)
        with pytest.raises(Problem) as refused:
            batcher.submit(Asked(x(9)))
        assert (refused.value.slug, refused.value.headers) == ("throttled", {"retry-after": "1"})
        model.free.set()
        await done(first, *queued)
        assert all(job.answer for job in queued)

    run(body, model, inline=False, limits=Limits(queue=4))
    assert model.batches == [1, 4]


def test_of_several_engines_the_others_run_what_waits_for_one_and_none_is_healthy_without_all() -> None:
    lanes = Doubler(), Doubler()

    async def body(batcher: Batcher) -> None:
        for lane in lanes:
            lane.free.clear()
        held = [Asked(x(1)), Asked(x(2))]
        for job in held:
            batcher.submit(job)
            while batcher.waiting():
                await asyncio.sleep(0)
        while batcher.healthy:
            await asyncio.sleep(0)
        lanes[1].free.set()
        while not any(job.answer for job in held):
            await asyncio.sleep(0)
        assert [job.answer is None for job in held].count(True) == 1
        while batcher.healthy:
            await asyncio.sleep(0)
        after = [Asked(x(value)) for value in range(3, 8)]
        lanes[0].free.set()
        await done(*held)
        while not batcher.healthy:
            await asyncio.sleep(0)
        for job in after:
            batcher.submit(job)
        await done(*after)
        assert [job.answer["y"].item() for job in after if job.answer] == [6, 8, 10, 12, 14]

    run(body, *lanes, inline=False, max_batch=1, limits=Limits(wedged_seconds=0.05), abreast=1)
    assert all(lane.batches for lane in lanes)


def test_what_runs_beside_others_is_told_so_and_what_runs_alone_has_the_machine() -> None:
    lanes = Doubler(), Doubler()

    async def body(batcher: Batcher) -> None:
        # One after the other: nobody is beside.
        for value in (1, 2):
            alone = Asked(x(value))
            batcher.submit(alone)
            await done(alone)
        assert [beside for lane in lanes for beside in lane.beside] == [False, False]
        # While the one that came first runs, the second has company, and so has what waits behind them.
        for lane in lanes:
            lane.free.clear()
            lane.beside.clear()
        held = [Asked(x(value)) for value in (1, 2, 3)]
        for count, job in enumerate(held, 1):
            batcher.submit(job)
            while batcher.waiting() and count < 3:
                await asyncio.sleep(0)
        while sum(len(lane.beside) for lane in lanes) < 2:
            await asyncio.sleep(0)
        # The third runs while one of the others still does.
        lanes[0].free.set()
        while sum(len(lane.beside) for lane in lanes) < 3:
            await asyncio.sleep(0)
        lanes[1].free.set()
        await done(*held)
        assert sorted(beside for lane in lanes for beside in lane.beside) == [False, True, True]

    run(body, *lanes, inline=False, max_batch=1, abreast=2)


def test_of_several_engines_a_lone_request_is_run_inline_and_one_with_company_is_not() -> None:
    threads: list[str] = []

    class Named(Doubler):
        def __call__(
            self, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool = False
        ) -> Arrays:
            threads.append(threading.current_thread().name)
            return super().__call__(requests, outputs, beside)

    async def body(batcher: Batcher) -> None:
        alone = Asked(x(1))
        batcher.submit(alone)
        await done(alone)
        assert threads == [threading.current_thread().name]
        threads.clear()
        both = [Asked(x(1)), Asked(x(2))]
        for job in both:
            batcher.submit(job)
        await done(*both)
        assert threading.current_thread().name not in threads

    run(body, Named(), Named(), max_batch=1, abreast=2)


def test_requests_too_few_to_fill_the_machine_beside_one_another_run_in_turns() -> None:
    lanes = [Doubler() for _ in range(4)]

    async def ran(batcher: Batcher, count: int) -> list[bool]:
        """What each of so many requests at once was told, while none was through."""
        for lane in lanes:
            lane.free.clear()
            lane.beside.clear()
        jobs = [Asked(x(value)) for value in range(count)]
        for job in jobs:
            batcher.submit(job)
        told: list[bool] = []
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            await asyncio.sleep(0.01)
            told = [beside for lane in lanes for beside in lane.beside]
        for lane in lanes:
            lane.free.set()
        await done(*jobs)
        while len(batcher._idle) < len(lanes):
            await asyncio.sleep(0)
        return told

    async def body(batcher: Batcher) -> None:
        assert await ran(batcher, 2) == [False]
        assert await ran(batcher, 3) == [True] * 3
        assert await ran(batcher, 6) == [True] * 4

    run(body, *lanes, inline=False, max_batch=1, abreast=3)


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        model.free.clear()
        queued = [Asked(x(value)) for value in range(3)]
        for job in queued:
            batcher.submit(job)
        # By the plan, a batch takes a second.
        with pytest.raises(Problem) as refused:
            batcher.submit(Asked(x(9), deadline=time.perf_counter() + 0.5))
        assert refused.value.slug == "overloaded"
        model.free.set()
        await done(*queued)

    run(body, model, inline=False, max_batch=1)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_wedged_engine_is_told_of_and_keeps_nobody_waiting(lanes: int) -> None:
    model = Doubler()

    async def body(batcher: Batcher) -> None:
        assert batcher.healthy
        model.free.clear()
        running, queued = Asked(x(1), deadline=time.perf_counter()), Asked(x(2), deadline=time.perf_counter())
        running.deadline = queued.deadline = time.perf_counter() + 1000
        batcher.submit(running)
        while batcher.healthy:
            await asyncio.sleep(0)
        with pytest.raises(Problem, match="could not answer in time"):
            batcher.submit(queued)
        batcher.expire(running.deadline + 1)
        await done(running)
        assert running.problem
        assert running.problem.slug == "timeout"
        model.free.set()
        while not batcher.healthy:
            await asyncio.sleep(0)
        after = Asked(x(3))
        batcher.submit(after)
        await done(after)
        assert after.answer

    run(body, *[model] * lanes, inline=False, limits=Limits(wedged_seconds=0.01), abreast=3)


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        ([1], [(1, True)]),
        ([1, 1], [(2, True)]),
        ([1, 1, 1], [(3, False)]),
        ([3], [(3, False)]),
        ([9], [(9, False)]),
    ],
)
def test_only_as_many_rows_as_are_short_enough_are_run_on_the_loop(
    asked: list[int], ran: list[tuple[int, bool]]
) -> None:
    batches: list[tuple[int, bool]] = []

    def model(requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
        rows = np.concatenate([request["x"] for request in requests])
        batches.append((len(rows), threading.current_thread() is threading.main_thread()))
        return {"y": rows}

    async def main() -> None:
        plan = Plan(4, 2, ((1, 0.1), (4, 0.2)))
        batcher = Batcher(asyncio.get_running_loop(), [model], plan, Limits(), "model")
        jobs = [Asked(x(*range(rows))) for rows in asked]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        batcher.close()

    asyncio.run(main())
    assert batches == ran


def test_more_clients_than_a_batch_has_room_for_leave_short_batches_on_the_loop() -> None:
    threads: set[threading.Thread] = set()

    class Noting(Doubler):
        def __call__(self, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
            threads.add(threading.current_thread())
            return super().__call__(requests, outputs, beside)

    model = Noting()

    async def body(batcher: Batcher) -> None:
        jobs = [Asked(x(value)) for value in range(1, 12)]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)

    run(body, model, max_batch=4)
    assert model.batches == [4, 4, 3]
    assert threads == {threading.main_thread()}


def test_a_target_without_a_server_imports_none_of_this() -> None:
    code = (
        "import sys, inference_runtime.service, inference_runtime.model\n"
        "print({'asyncio', 'uvloop', 'prometheus_client', 'inference_runtime.batching', "
        "'inference_runtime.warmup', 'inference_runtime.metrics'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


class Encoder:
    """What a text encoder gives: a value for each token, by all tokens of its text, and one for each text."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
        ids, mask = (np.concatenate([request[name] for request in requests]) for name in ("ids", "mask"))
        if ids.shape != mask.shape:
            raise Problem("invalid-shape", "ids and mask differ")
        self.batches.append(ids.shape)
        text = (ids * mask).sum(1, keepdims=True)
        found = {"tokens": (ids * 1000 + text)[..., None], "text": text}
        return {name: found[name] for name in outputs}


def padding() -> Padding:
    inputs = (TensorSpec("ids", "INT64", (-1, -1), 7), TensorSpec("mask", "INT64", (-1, -1), 0))
    outputs = (TensorSpec("tokens", "INT64", (-1, -1, 1)), TensorSpec("text", "INT64", (-1, 1)))
    found = Padding.of(Manifest("0" * 64, "m", "1", "", "m", None, {}, inputs, outputs))
    assert found
    return found


def text(rows: int, length: int, masked: int | None = None) -> Arrays:
    ids = np.arange(1, rows * length + 1, dtype=np.int64).reshape(rows, length)
    return {"ids": ids, "mask": np.ones((rows, masked or length), np.int64)}


@both
@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(1, 40),
            st.sampled_from([("text",), ("tokens",), ("text", "tokens")]),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 12),
)
def test_requests_of_different_lengths_are_answered_as_each_alone(
    inline: bool, asked: list[tuple[int, int, tuple[str, ...], bool]], max_batch: int
) -> None:
    async def body(batcher: Batcher) -> None:
        jobs = []
        for rows, length, outputs, pause in asked:
            jobs.append(Asked(text(rows, length), outputs))
            batcher.submit(jobs[-1])
            if pause:
                await asyncio.sleep(0)
        await done(*jobs)
        for job in jobs:
            assert job.answer is not None
            for name, array in Encoder()([job.inputs], job.outputs, False).items():
                np.testing.assert_array_equal(job.answer[name], array)

    model = Encoder()
    run(body, model, inline=inline, max_batch=max_batch, padding=padding())
    sent = sum(rows * length for rows, length, _, _ in asked)
    assert sum(rows * length for rows, length in model.batches) < 2 * sent


def test_lengths_that_are_not_twice_each_other_share_a_batch() -> None:
    async def body(batcher: Batcher) -> None:
        jobs = [Asked(text(1, length), ("tokens",)) for length in (5, 7, 4, 20)]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)

    model = Encoder()
    run(body, model, padding=padding())
    assert model.batches == [(3, 7), (1, 20)]
    model = Encoder()
    run(body, model)
    assert model.batches == [(1, 5), (1, 7), (1, 4), (1, 20)]


def test_a_request_whose_inputs_disagree_about_its_length_is_not_made_right_by_padding() -> None:
    async def body(batcher: Batcher) -> None:
        jobs = [Asked(text(1, 7), ("text",)), Asked(text(1, 5, masked=6), ("text",))]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert jobs[0].answer is not None
        assert jobs[1].problem is not None
        assert jobs[1].problem.slug == "invalid-shape"

    run(body, Encoder(), padding=padding())


def test_an_output_of_another_length_than_the_inputs_is_never_cut() -> None:
    def model(requests: Sequence[Arrays], outputs: Sequence[str], beside: bool) -> Arrays:
        ids = np.concatenate([request["ids"] for request in requests])
        rows, length = ids.shape
        return {"tokens": np.full((rows, length + 1, 1), length)}

    async def body(batcher: Batcher) -> None:
        jobs = [Asked(text(1, length), ("tokens",)) for length in (6, 7)]
        for job in jobs:
            batcher.submit(job)
        await done(*jobs)
        assert [job.answer["tokens"].shape for job in jobs if job.answer] == [(1, 7, 1), (1, 8, 1)]

    run(body, model, padding=padding())
