"""The image as SageMaker runs it: `serve`, a model mounted read-only, and the container contract.

Not part of `make test`: `make image-test` builds the image first, as root, which takes minutes.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_containers.onnx import compilation
from inference_runtime.expectations import check
from inference_runtime.manifest import Artifact, verify
from models import build as builder
from tests.image import buildah
from tests.unit.containers.process import FILES, ROOT, Server

pytestmark = pytest.mark.image

DEVICE = os.environ.get("DEVICE", "cpu")
MODEL = "text-embedding"
FOLDER = ROOT / "models" / MODEL
SAMPLE = (FOLDER / "sample.json").read_bytes()
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def image() -> str:
    return buildah.built(DEVICE)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    assert builder.main([]) == 0
    return verify(builder.BUILD / "artifacts" / MODEL)


@pytest.fixture(scope="module")
def server(image: str, artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with buildah.running(image, artifact, tmp_path_factory.mktemp("image") / "log") as server:
        server.wait_until_ready()
        yield server


def test_it_says_where_there_is_no_gpu_that_its_variant_could_use(server: Server) -> None:
    missed = server.records("no usable GPU: this model runs on the CPU")
    assert bool(missed) == (DEVICE == "cuda" and not Path("/dev/nvidiactl").exists())


def test_what_every_request_passes_through_is_compiled(image: str) -> None:
    files = buildah.output(image, "python", "-c", FILES).split()
    assert [Path(file).suffix for file in files] == [".so"] * len(compilation.MODULES)


def test_ping_says_that_the_model_answers(server: Server) -> None:
    assert server.request("GET", "/ping").status == 200


def test_an_invocation_is_answered_as_expected(server: Server) -> None:
    reply = server.request("POST", "/invocations", SAMPLE, JSON)
    assert reply.status == 200
    assert check(json.loads((FOLDER / "expected.json").read_bytes()), reply.json) == []


def test_a_refusal_is_a_problem_document_with_its_own_status(server: Server) -> None:
    reply = server.request("POST", "/invocations", b"{", JSON)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")


def test_metadata_come_by_custom_attribute(server: Server, artifact: Artifact) -> None:
    headers = {"x-amzn-sagemaker-custom-attributes": "op=metadata"}
    reply = server.request("POST", "/invocations", b"", headers)
    assert reply.json["parameters"] == {"artifact_sha256": artifact.manifest.sha256}


def test_every_line_of_the_log_is_a_json_document(server: Server) -> None:
    server.request("POST", "/invocations", SAMPLE, JSON | {"x-amzn-sagemaker-inference-id": "image-test"})
    # The line is written once the answer is on its way.
    until = time.monotonic() + 30
    while "image-test" not in {record["request_id"] for record in server.records("request")}:
        assert time.monotonic() < until, server.log.read_text()
        time.sleep(0.05)


def test_every_other_kind_of_model_runs_in_it(image: str, tmp_path: Path) -> None:
    for name in ("file-type", "wine-cultivar", "pii-redaction"):
        artifact = verify(builder.BUILD / "artifacts" / name)
        folder = ROOT / "models" / name
        with buildah.running(image, artifact, tmp_path / f"{name}.log") as server:
            server.wait_until_ready()
            reply = server.request("POST", "/invocations", (folder / "sample.json").read_bytes(), JSON)
        assert check(json.loads((folder / "expected.json").read_bytes()), reply.json) == []


def test_a_damaged_artifact_never_says_that_it_is_ready(
    image: str, artifact: Artifact, tmp_path: Path
) -> None:
    with buildah.running(image, artifact, tmp_path / "log", MODEL_SHA256="0" * 64) as server:
        server.connect().close()
        while not server.records("model not loaded"):
            assert server.request("GET", "/ping").status == 503


def test_sigterm_ends_it_with_success(image: str, artifact: Artifact, tmp_path: Path) -> None:
    with buildah.running(image, artifact, tmp_path / "log") as server:
        server.wait_until_ready()
        buildah.terminate(server.process.pid)
        assert server.process.wait(timeout=30) == 0
