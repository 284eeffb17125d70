"""What the warm-up finds out about a model."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from inference_runtime import cuda, warmup
from inference_runtime.batching import Plan
from inference_runtime.manifest import Artifact
from inference_runtime.model import Arrays, Engine, Model
from tests.unit.runtime import tiny


def test_a_short_graph_whose_rows_are_apart_is_joined_and_run_inline_by_one_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _, plan = warmup.load(tiny.doubler(tmp_path), Engine(device="cpu", spinning=True))
    assert plan.max_batch > 1
    assert plan.inline == plan.max_batch
    assert [rows for rows, _ in plan.seconds] == sorted(rows for rows, _ in plan.seconds)
    said = caplog.records[-1].__dict__
    assert (said["message"], said["threads"], said["batching"]) == ("model warmed up", 1, True)


def test_batches_may_be_forbidden(tmp_path: Path) -> None:
    assert warmup.load(tiny.doubler(tmp_path), Engine(device="cpu"), max_batch=1)[1].max_batch == 1


def test_rows_that_answer_otherwise_together_are_never_joined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        "mixer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
    )
    signature = [("x", "FP32", (-1, 2))], [("y", "FP32", (-1, 2))]
    with caplog.at_level(logging.INFO):
        _, plan = warmup.load(tiny.artifact(tmp_path, graph, *signature), Engine(device="cpu"))
    assert plan.max_batch == 1
    assert "batching off" in caplog.messages


@pytest.mark.parametrize(("files", "joined"), [({}, False), ({"sample.json": tiny.body()}, True)])
def test_a_handler_is_joined_if_a_sample_shows_that_it_can_be_and_never_run_inline(
    tmp_path: Path, files: dict[str, bytes], joined: bool
) -> None:
    handler = "import time\ndef preprocess(inputs, state):\n    time.sleep(0.001)\n    return inputs"
    _, plan = warmup.load(tiny.doubler(tmp_path, handler=handler, files=files), Engine(device="cpu"))
    assert (plan.max_batch > 1) is joined
    assert not plan.inline


@pytest.mark.parametrize("captured", [True, False])
def test_another_gpu_runs_the_sizes_that_were_not_captured_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captured: bool
) -> None:
    opened: list[Model] = []
    ran: list[tuple[int, int]] = []
    infer_joined = Model.infer_joined

    def open_(artifact: Artifact, engine: Engine) -> Model:
        opened.append(Model(artifact, engine))
        return opened[-1]

    def run(model: Model, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool = False) -> Arrays:
        ran.append((opened.index(model), sum(len(request["x"]) for request in requests)))
        return infer_joined(model, requests, outputs, beside)

    # As two GPUs of which each captures all sizes, or none; both are this CPU.
    monkeypatch.setattr(warmup, "Model", open_)
    monkeypatch.setattr(Model, "on_gpu", True)
    monkeypatch.setattr(cuda, "devices", lambda: 2)
    monkeypatch.setattr(Model, "infer_joined", run)
    monkeypatch.setattr(Model, "bind", lambda model, rows: rows if captured else 0)
    models, plan = warmup.load(tiny.doubler(tmp_path), Engine(device="cpu"), 8)
    assert len(models) == 2
    assert [size for model, size in ran if model == 1] == (
        [] if captured else [each for each, _ in plan.seconds]
    )


def test_a_handler_that_refuses_made_up_values_is_served_without_a_plan(tmp_path: Path) -> None:
    handler = "def preprocess(inputs, state):\n    raise ValueError('not these')"
    assert warmup.load(tiny.doubler(tmp_path, handler=handler), Engine(device="cpu"))[1] == Plan()


def pooling(folder: Path, length: int, *, masked: bool) -> Artifact:
    """The sum of a row's values, and each with that sum; padding counts unless masked. Batches pay."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "mask"], ["kept"]),
            helper.make_node("ReduceSum", ["kept" if masked else "x", "axis"], ["sum"], keepdims=1),
            helper.make_node("Add", ["x", "sum"], ["each"]),
        ],
        "pooling",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("x", "mask")],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("each", TensorProto.FLOAT, [None, None]),
        ],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    tensor = {"datatype": "FP32", "shape": [1, length], "data": [1.0] * length}
    sample = json.dumps({"inputs": [tensor | {"name": name} for name in ("x", "mask")]}).encode()
    return tiny.artifact(
        folder,
        graph,
        [("x", "FP32", (-1, -1), 5), ("mask", "FP32", (-1, -1), 0)],
        [("sum", "FP32", (-1, 1)), ("each", "FP32", (-1, -1))],
        "import time\ndef preprocess(inputs, state):\n    time.sleep(0.001)\n    return inputs",
        {"sample.json": sample},
    )


@pytest.mark.parametrize(
    ("length", "masked", "reason"),
    [
        (8, True, None),
        (8, False, "output 'sum': rows answer otherwise together than alone"),
        (1, True, "the warm-up request's length is 1; it takes 2 to see what padding does"),
    ],
)
def test_lengths_are_joined_if_padding_changes_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int, masked: bool, reason: str | None
) -> None:
    with caplog.at_level(logging.INFO):
        _, plan = warmup.load(pooling(tmp_path, length, masked=masked), Engine(device="cpu"))
    assert plan.max_batch > 1
    assert (plan.padding is not None) is (reason is None)
    said = [entry.__dict__["reason"] for entry in caplog.records if "joining of lengths off" in entry.message]
    assert said == ([reason] if reason else [])


WAITS = """
import threading, time
lock, inside = threading.Lock(), []
def preprocess(inputs, state):
    inside.append(1)
    {wait}
    inside.pop()
    return inputs
"""


@pytest.mark.parametrize(
    ("wait", "lanes"),
    [
        ("time.sleep(0.005)", 3),
        # Under load, which takes a core now and then, it is only in turns that one waits for another.
        ("with lock: time.sleep(0.005)", 3),
        # Nothing is gained where one hinders the other, or where handing over costs as much.
        ("time.sleep(0.005 * len(inside) ** 2)", 1),
        ("pass", 1),
    ],
    ids=["apart", "as soon in turns", "sooner in turns", "short"],
)
def test_batches_run_beside_one_another_unless_they_are_through_later_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str, lanes: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    handler = WAITS.format(wait=wait)
    models, plan = warmup.load(tiny.doubler(tmp_path, handler=handler), Engine(device="cpu"))
    assert len(models) == lanes
    assert all(model is models[0] for model in models)
    assert (0.001 < plan.pace < 0.008) is (lanes > 1)
    assert plan.expected(6) == 6 * (plan.pace or plan.seconds[0][1])


@pytest.mark.parametrize(
    ("threads", "seconds", "others", "lanes", "processes"),
    [
        # Not inline: three may run beside one another.
        (0, 0.04, True, 3, False),
        (1, 0.04, True, 3, False),
        # Other processes use the other cores, where there are some.
        (0, 0.003, True, 1, True),
        (1, 0.003, True, 1, True),
        (1, 0.012, True, 1, True),
        (0, 0.003, False, 3, False),
        (1, 0.003, False, 3, False),
        # Too short to be handed over.
        (0, 0.001, False, 1, False),
    ],
)
def test_a_graphs_batches_run_beside_one_another_where_neither_threads_nor_processes_use_the_cores(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    seconds: float,
    others: bool,
    lanes: int,
    processes: bool,
) -> None:
    monkeypatch.setattr(warmup, "_threads", lambda model, *_: (threads, model.reopened(1)))
    monkeypatch.setattr(warmup, "_sizes", lambda run, rows, most: [(1, seconds / 2), (8, seconds)])
    monkeypatch.setattr(warmup, "_lanes", lambda run: (3, 0.003, 0.002))
    models, plan = warmup.load(tiny.doubler(tmp_path), Engine(device="cpu"), processes=others)
    assert (len(models), plan.threads, plan.processes) == (lanes, threads, processes)
    assert plan.inline == plan.max_batch or not processes


def test_a_process_that_may_use_one_core_has_one_thread_and_one_lane(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = sessions(monkeypatch)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {7})
    with caplog.at_level(logging.INFO):
        models, _ = warmup.load(tiny.doubler(tmp_path), Engine(device="cpu"))
    assert (opened, len(models), caplog.records[-1].__dict__["threads"]) == ([(1, "0")], 1, 1)


def sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Of every session that is opened from now on: its threads, and whether they rest between requests."""
    opened: list[tuple[int, str]] = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, options: Any, providers: list[Any]) -> Any:
        rest = options.get_session_config_entry("session.force_spinning_stop")
        opened.append((options.intra_op_num_threads, rest))
        return session(path, options, providers)

    monkeypatch.setattr("onnxruntime.InferenceSession", open_session)
    return opened


def test_a_short_row_has_all_cores_awake_while_it_is_alone_and_one_thread_beside_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = sessions(monkeypatch)
    # All cores and one thread, in turns; then one thread again.
    seconds = iter([0.001, 0.003] * 3 + [0.003])
    monkeypatch.setattr(warmup, "_seconds", lambda run: next(seconds))
    monkeypatch.setattr(warmup, "_sizes", lambda run, rows, most: [(1, 0.003), (8, 0.009), (16, 0.011)])
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    engine = Engine(device="cpu", spinning=True)
    [model], plan = warmup.load(tiny.doubler(tmp_path), engine, processes=True)
    assert opened == [(0, "1"), (1, "1"), (3, "0")]
    assert (plan.threads, plan.processes, plan.max_batch, plan.inline) == (0, True, 8, 8)
    for beside in (False, True):
        x = {"x": np.ones((1, 2), np.float32)}
        assert model.infer_joined((x,), ("y",), beside)["y"].tolist() == [[2, 2]]


def test_a_handler_stays_in_one_process(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path, handler="def preprocess(inputs, state):\n    return inputs")
    assert not warmup.load(artifact, Engine(device="cpu"), processes=True)[1].processes


@pytest.mark.parametrize("twice", [True, False])
def test_a_graph_that_one_thread_runs_slower_is_in_memory_twice_only_where_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    # All cores and one thread, in turns; then the row.
    seconds = iter([0.001, 0.01] * 3 + [0.006])
    monkeypatch.setattr(warmup, "_seconds", lambda run: run() and next(seconds))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    handler = WAITS.format(wait="time.sleep(0.005)")
    artifact = tiny.doubler(tmp_path, handler=handler)
    models, _ = warmup.load(artifact, Engine(device="cpu"), twice=twice)
    assert len(models) == (3 if twice else 1)
    x = np.ones((1, 2), np.float32)
    assert models[0].infer_joined(({"x": x},), ("y",), True)["y"].tolist() == [[2, 2]]


@pytest.mark.parametrize(
    ("row", "batch", "threads"),
    [
        ((0.001, 0.003), None, 3),
        ((0.003, 0.001), None, 1),
        # So short a row is not worth a second thread.
        ((0.0001, 0.0003), None, 1),
        # As fast, as far as can be told: then a batch has the say.
        ((0.001, 0.00105), (0.002, 0.004), 3),
        ((0.00105, 0.001), (0.002, 0.004), 3),
        ((0.001, 0.00105), (0.002, 0.00205), 1),
    ],
)
def test_a_graph_has_the_threads_that_run_a_row_faster_or_else_a_batch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    row: tuple[float, float],
    batch: tuple[float, float] | None,
    threads: int,
) -> None:
    # All cores and one thread, in turns.
    seconds = iter([*row * 3, *(batch or ()) * 3])
    monkeypatch.setattr(warmup, "_seconds", lambda run: next(seconds))
    monkeypatch.setattr(warmup, "_sizes", lambda run, rows, most: [(1, 0.001)])
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2})
    with caplog.at_level(logging.INFO):
        warmup.load(tiny.doubler(tmp_path), Engine(device="cpu"))
    assert caplog.records[-1].__dict__["threads"] == threads
    assert list(seconds) == []


@pytest.mark.parametrize(
    ("seconds", "max_batch", "inline"),
    [
        # A row costs nothing more: as large as it gets, and all of it short.
        ([0.1, 0.1, 0.1, 0.1], 8, 8),
        # The larger the better, but only two rows are short: the rest is not given up for that.
        ([0.5, 0.6, 1.2, 2.0], 8, 2),
        # None is short.
        ([2.0, 2.5, 3.0, 4.0], 8, 0),
        # From four rows on, a row gets no cheaper.
        ([0.2, 0.25, 0.3, 0.6], 4, 4),
        # Joining pays for nothing,
        ([0.9, 1.8, 3.6, 7.2], 1, 1),
        # unless rows are so short that a batch costs as much.
        ([0.0002, 0.0004, 0.0008, 0.0016], 4, 4),
    ],
)
def test_the_plan_is_the_cheapest_row_and_what_of_it_is_short_runs_on_the_loop(
    seconds: list[float], max_batch: int, inline: int
) -> None:
    plan = warmup.plan([(1 << index, each) for index, each in enumerate(seconds)], short=1.0)
    assert (plan.max_batch, plan.inline) == (max_batch, inline)


def test_without_a_driver_cuda_is_not_tried_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: pytest.fail("loads gigabytes"))
    monkeypatch.setattr("ctypes.CDLL", no_library)
    model = Model(tiny.doubler(tmp_path))
    assert model.on_cpu
    [said] = [entry for entry in caplog.records if "no usable GPU" in entry.message]
    assert said.__dict__["reason"] == "libcuda.so.1: cannot open shared object file"


def test_without_tensorrt_the_log_says_why_and_cuda_runs_the_model_with_its_own_options(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    session = onnxruntime.InferenceSession

    def open_session(path: str, options: Any, providers: list[Any]) -> Any:
        opened.append(providers)
        return session(path, options, ["CPUExecutionProvider"])

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: available)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    monkeypatch.setattr("inference_runtime.cuda.missing", lambda: "")
    monkeypatch.setattr("onnxruntime.InferenceSession", open_session)
    Model(tiny.doubler(tmp_path), Engine(device="tensorrt", gpu=3))
    [(device, given), _] = opened[0]
    assert (device, given["device_id"], len(opened)) == ("CUDAExecutionProvider", "3", 1)
    [said] = [entry for entry in caplog.records if "no usable TensorRT" in entry.message]
    assert said.__dict__["reason"].startswith("libnvinfer.so.10: cannot open shared object file")


def no_library(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")
