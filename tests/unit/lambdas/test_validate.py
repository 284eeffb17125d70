"""The validator of releases: which artifacts it lets pass, and why it refuses the others."""

import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from inference_runtime import manifest
from inference_runtime.manifest import FILE_NAME, Artifact, TensorSpec
from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws
from tests.unit.runtime import tiny

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4

PLAIN = "def infer(inputs, state):\n    return {'y': inputs['x'] * 2}\n"
SAMPLE = tiny.body()
EXPECTED = json.dumps({"outputs": {"y": {"close": {"to": [2, 4, 7, -8], "within": 0.01}}}}).encode()


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mocked_aws(
        monkeypatch, MODEL_NAME="doubler", MODELS_BUCKET="models", MAX_BYTES="100000", ANSWER_SECONDS="5"
    ):
        boto3.client("s3").create_bucket(Bucket="models")
        yield


@pytest.fixture
def validator() -> ModuleType:
    return imported("inference", "validate")


def plain(folder: Path, handler: str = PLAIN, *, version: str = "1.1.0", **files: bytes) -> Artifact:
    """A doubler without a graph, which needs no ONNX Runtime to start."""
    folder.mkdir()
    content = {"handler.py": handler.encode(), "sample.json": SAMPLE, "expected.json": EXPECTED} | files
    for name, data in content.items():
        (folder / name).write_bytes(data)
    manifest.write(
        folder, name="doubler", version=version, model=None, handler="handler.py",
        inputs=[TensorSpec("x", "FP32", (-1, 2))], outputs=[TensorSpec("y", "FP32", (-1, 2))],
    )  # fmt: skip
    return manifest.verify(folder)


def upload(artifact: Artifact, prefix: str = "incoming/doubler/1.1.0") -> dict[str, Any]:
    """Put the artifact into S3; returns the event about it."""
    s3 = boto3.client("s3")
    for name in (*artifact.manifest.files, FILE_NAME):
        s3.upload_file(str(artifact.folder / name), "models", f"{prefix}/{name}")
    return {
        "model": "doubler",
        "version": artifact.manifest.version,
        "sha256": artifact.manifest.sha256,
        "location": f"s3://models/{prefix}/",
        "source": "upload",
    }


def refusal(validator: ModuleType, event: dict[str, Any]) -> str:
    with pytest.raises(validator.Refused) as raised:
        validator.handler(event, None)
    return str(raised.value)


def test_a_good_version_passes_with_what_was_found(
    validator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P50_MS", "5000")
    golden = {"sample.json": SAMPLE, "expected.json": EXPECTED}
    artifact = tiny.doubler(tmp_path / "a", files=golden)
    found = validator.handler(upload(artifact), None)
    assert 0 < found.pop("p50_ms") < 5000
    assert len(found.pop("fingerprint")) == 64
    assert found == {
        "sha256": artifact.manifest.sha256,
        "version": "1",
        "opset": 17,
        "bytes": sum(entry.size for entry in artifact.manifest.files.values()),
    }


def test_the_fingerprint_changes_when_a_file_is_replaced(validator: ModuleType, tmp_path: Path) -> None:
    event = upload(plain(tmp_path / "a", **{"words.txt": b"one"}))
    before = validator.handler(event, None)["fingerprint"]
    assert validator.handler(event, None)["fingerprint"] == before
    other = upload(plain(tmp_path / "b", **{"words.txt": b"two"}))
    assert validator.handler(other, None)["fingerprint"] != before


def test_files_that_are_not_what_the_manifest_says_are_refused_by_name(
    validator: ModuleType, tmp_path: Path
) -> None:
    event = upload(plain(tmp_path / "a"))
    s3, key = boto3.client("s3"), "incoming/doubler/1.1.0/handler.py"
    s3.put_object(Bucket="models", Key=key, Body=PLAIN.replace("2", "3").encode())
    assert refusal(validator, event).startswith("handler.py: SHA-256 is ")
    s3.put_object(Bucket="models", Key=key, Body=b"short")
    assert refusal(validator, event) == f"handler.py: 5 bytes, the manifest says {len(PLAIN)}"
    s3.delete_object(Bucket="models", Key=key)
    assert refusal(validator, event) == f"s3://models/{key}: there is no such file"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "manifest.json: SHA-256 is "),
        ({"version": "2.0.0"}, "manifest.json: version is '1.1.0', and was uploaded as '2.0.0'"),
        ({"location": "s3://others/incoming/doubler/1.1.0/"}, "s3://others/incoming/doubler/1.1.0/ is no"),
        ({"location": "s3://models/incoming/tripler/1.1.0/"}, "s3://models/incoming/tripler/1.1.0/ is no"),
    ],
)  # fmt: skip
def test_an_upload_that_is_not_what_was_announced_is_refused(
    validator: ModuleType, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    assert refusal(validator, upload(plain(tmp_path / "a")) | changes).startswith(said)


def test_what_is_too_large_is_refused_before_it_is_read(
    validator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = upload(plain(tmp_path / "a", **{"weights.bin": b"0" * 2000}))
    boto3.client("s3").delete_object(Bucket="models", Key="incoming/doubler/1.1.0/weights.bin")
    monkeypatch.setenv("MAX_BYTES", "2000")
    assert refusal(validator, event).endswith("bytes; 2000 are allowed")


def test_what_shows_without_running_it_is_refused_all_at_once(validator: ModuleType, tmp_path: Path) -> None:
    live = tiny.identity(tmp_path / "live", "INT64", 7)
    upload(live, f"doubler/{live.manifest.sha256}")
    event = upload(plain(tmp_path / "a", **{"scaler.pkl": b"x"})) | {"previous": live.manifest.sha256}
    said = refusal(validator, event)
    assert "scaler.pkl: pickles run code" in said
    assert "input 'x' was INT64[-1], and takes only FP32[-1, 2]" in said
    assert "input 'x'" not in refusal(validator, event | {"breaking": True})


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("def infer(inputs, state): return {'y': inputs['x'] * 3}", "y: has 3.0, expected 2 within 0.01"),
        (
            "def infer(inputs, state): return {'z': inputs['x']}",
            "the model does not load: the model does not",
        ),
        ("syntax error", "the model does not load: handler.py: SyntaxError"),
        ("import os; os._exit(7)", "the model's process ended with status 7 when it was to load"),
        (
            f"def load(folder): raise MemoryError('none')\n{PLAIN}",
            "the model does not load: handler.py: MemoryError",
        ),
    ],
)
def test_a_model_that_answers_wrongly_or_not_at_all_is_refused_with_the_reason(
    validator: ModuleType, tmp_path: Path, handler: str, said: str
) -> None:
    assert said in refusal(validator, upload(plain(tmp_path / "a", handler)))


def test_a_model_that_never_answers_is_ended_and_refused(
    validator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSWER_SECONDS", "0.1")
    handler = "import time\ndef infer(inputs, state): time.sleep(600)\n"
    assert refusal(validator, upload(plain(tmp_path / "a", handler))) == "the model does not load within 1 s"


def test_a_version_slower_than_promised_is_refused(
    validator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P50_MS", "20")
    handler = f"import time\n{PLAIN.replace('return', 'time.sleep(0.03); return')}"
    said = refusal(validator, upload(plain(tmp_path / "a", handler)))
    assert said.startswith("the golden request takes ")
    assert said.endswith(" ms in the median; 20 are promised")


def test_an_artifacts_code_has_no_credentials_and_cannot_look_into_the_validator(
    validator: ModuleType, tmp_path: Path
) -> None:
    handler = f"""
import os
credentials = [name for name in os.environ if name.startswith(('AWS', 'MODELS'))]
assert not credentials, credentials
assert os.getsid(0) != {os.getsid(0)}
{PLAIN}"""
    prctl = ctypes.CDLL(None).prctl
    assert os.environ["AWS_SECRET_ACCESS_KEY"]
    try:
        validator.handler(upload(plain(tmp_path / "a", handler)), None)
        assert prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0
    finally:
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def test_an_expectation_that_makes_no_sense_is_the_publishers_mistake(
    validator: ModuleType, tmp_path: Path
) -> None:
    event = upload(plain(tmp_path / "a", **{"expected.json": b'{"outputs": {"y": {"close": 3}}}'}))
    assert "expected.json cannot be applied" in refusal(validator, event)


def test_a_stored_artifact_is_found_where_it_is_stored(validator: ModuleType, tmp_path: Path) -> None:
    artifact = plain(tmp_path / "a")
    event = upload(artifact, f"doubler/{artifact.manifest.sha256}")
    del event["location"]
    assert validator.handler(event, None)["sha256"] == artifact.manifest.sha256


def test_it_is_the_validator_of_one_model(validator: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this is the validator of 'doubler'"):
        validator.handler(upload(plain(tmp_path / "a")) | {"model": "tripler"}, None)
