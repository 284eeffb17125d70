"""The same answers from a GPU, by the same server. `make gpu-test`, on a machine that has one."""

import ctypes
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import models
from inferctl.serving import signature
from inference_runtime import cuda, manifest, warmup
from inference_runtime.cuda import PageLocked
from inference_runtime.manifest import Artifact
from inference_runtime.model import Arrays, Engine, Model
from tests.unit.containers.process import Server, serving
from tests.unit.runtime import tiny

pytestmark = pytest.mark.gpu

CUDA = Engine(device="cuda", spinning=True)
#: TensorFloat-32, which ONNX Runtime uses by default, keeps ten bits of a product's fraction.
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(name: str) -> Artifact:
        folder = tmp_path_factory.mktemp(name)
        file = models.made(name, folder)
        inputs, outputs = signature(file)
        manifest.write(
            folder, name=name, version="1", model=file.name, handler=None, inputs=inputs, outputs=outputs
        )
        return manifest.verify(folder)

    return make


def requests(artifact: Artifact, count: int) -> list[Arrays]:
    """So many different requests of one row."""
    one = models.request(artifact.manifest.inputs, 128)
    random = np.random.default_rng(3)
    return [
        {
            name: random.permutation(array.reshape(-1)).reshape(array.shape)
            if array.dtype.kind == "f"
            else array
            for name, array in one.items()
        }
        for _ in range(count)
    ]


def near(found: Any, expected: Any) -> bool:
    return bool(np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("name", list(models.MODELS))
def test_a_model_answers_on_a_gpu_as_on_a_cpu_alone_and_joined(made: Any, name: str) -> None:
    artifact = made(name)
    expected = Model(artifact, Engine(device="cpu"))
    [found, *_], plan = warmup.load(artifact, CUDA)
    assert found.on_gpu
    asked = requests(artifact, max(plan.max_batch, 3))
    names = [spec.name for spec in artifact.manifest.outputs]
    alone = [expected.infer(request, names) for request in asked[:8]]
    for count in (1, 3, len(asked)):
        joined = found.infer_joined(asked[:count], names)
        for index, answer in enumerate(alone[:count]):
            assert all(near(joined[each][index], answer[each][0]) for each in names)


def test_batches_are_joined_and_bound_where_rows_have_a_shape(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        [model, *_], plan = warmup.load(made("convnet"), CUDA)
    assert plan.max_batch > 1
    assert model.bind(plan.max_batch) == plan.max_batch
    assert "memory not page-locked" not in caplog.messages
    [said] = [each.__dict__ for each in caplog.records if each.message == "model loaded"]
    assert said["execution_providers"][0] == "CUDAExecutionProvider"


def test_memory_is_page_locked_and_given_back(made: Any) -> None:
    Model(made("mlp"), CUDA)  # which loads the CUDA runtime
    assert cuda.devices() >= 1
    block = PageLocked(64 * 1024 * 1024)
    array = block.array((1024, 1024), np.dtype(np.float32))
    array[:] = 1
    assert locked(array)
    kept = array.copy()
    del block
    assert not locked(array)
    assert not locked(kept)


def locked(array: Any) -> bool:
    library, flags = cuda._library(), ctypes.c_uint(0)
    error = library.cudaHostGetFlags(ctypes.byref(flags), ctypes.c_void_p(array.ctypes.data))
    library.cudaGetLastError()
    return bool(error == 0)


def test_a_gpu_is_asked_for_by_number_and_where_it_is_not_there_the_cpu_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(tiny.doubler(tmp_path), replace(CUDA, gpu=cuda.devices() + 7))
    assert not model.on_gpu
    assert "no usable GPU: this model runs on the CPU" in caplog.messages


def test_tensorrt_is_used_where_it_is_and_cuda_with_a_warning_where_it_is_not(
    made: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = made("mlp")
    with caplog.at_level(logging.INFO):
        [model, *_], plan = warmup.load(artifact, replace(CUDA, device="tensorrt", cache=tmp_path))
    [said] = [each.__dict__ for each in caplog.records if each.message == "model loaded"]
    assert model.on_gpu
    if "TensorrtExecutionProvider" in said["execution_providers"]:
        assert list(tmp_path.iterdir())
    else:
        assert caplog.messages.count("no usable TensorRT: this model runs on CUDA") == 1
        assert model.bind(plan.max_batch) == plan.max_batch
    [one] = requests(artifact, 1)
    expected = Model(artifact, Engine(device="cpu")).infer(one, ["y"])["y"]
    assert near(model.infer_joined([one], ["y"])["y"], expected)
    out, err = capfd.readouterr()
    assert not out + err, "what is printed is not in the log's form"


@pytest.fixture(scope="module")
def served(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    artifact = made("convnet")
    log = tmp_path_factory.mktemp("log") / "server"
    with serving(
        artifact.folder, artifact.manifest.sha256, log, MODEL_NAME="convnet", DEVICE="cuda"
    ) as server:
        server.wait_until_ready()
        yield server


def test_clients_of_a_server_on_a_gpu_get_their_own_answers(made: Any, served: Server) -> None:
    artifact = made("convnet")
    expected = Model(artifact, Engine(device="cpu"))
    asked = requests(artifact, 8)
    answers = [expected.infer(request, ["y"])["y"] for request in asked]

    def ask(number: int) -> None:
        x = asked[number % len(asked)]["x"]
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "FP32",
                        "shape": list(x.shape),
                        "parameters": {"binary_data_size": x.nbytes},
                    }
                ]
            }
        ).encode()
        reply = served.request(
            "POST",
            "/v2/models/convnet/infer",
            head + x.tobytes(),
            {"inference-header-content-length": str(len(head))},
        )
        assert reply.status == 200, reply.body
        assert near(np.array(reply.json["outputs"][0]["data"]), answers[number % len(asked)].reshape(-1))

    with ThreadPoolExecutor(16) as clients:
        for _ in clients.map(ask, range(128)):
            pass
    [warm] = served.records("model warmed up")
    assert warm["max_batch"] > 1
    [loaded] = served.records("model loaded")
    assert loaded["execution_providers"][0] == "CUDAExecutionProvider"


def test_a_request_that_is_no_batch_of_the_plan_is_answered_too(made: Any) -> None:
    [model, *_], plan = warmup.load(made("mlp"), CUDA)
    [one] = requests(made("mlp"), 1)
    many = {"x": np.repeat(one["x"], 2 * plan.max_batch + 1, axis=0)}
    found: Sequence[Any] = model.infer_joined([many], ["y"])["y"]
    assert len(found) == 2 * plan.max_batch + 1
    assert all(near(row, found[0]) for row in itertools.islice(found, 1, None))
