"""The built zip is complete: it runs in an interpreter that cannot see this project or its environment."""

import functools
import http.server
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_runtime.manifest import Artifact
from stacks.bundling import lambda_zip
from tests.unit.lambdas.function import proxy_event
from tests.unit.runtime import tiny

#: What the Lambda runtime does: put the task's folder on the path, import the handler, call it.
RUN = """
import json, sys
task, events = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, task)
import handler
answers = [handler.handler(event, None) for event in events]
foreign = [
    module.__file__ for module in sys.modules.values()
    if getattr(module, "__file__", None) and not module.__file__.startswith((task, sys.base_prefix))
]
print(json.dumps({"answers": answers, "foreign": foreign}))
"""
ISOLATED = (sys._base_executable, "-I", "-S", "-B", "-c", RUN)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(lambda_zip("inference", python="host", architecture="host")) as archive:
        archive.extractall(folder)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny.doubler(tmp_path / "model")


@pytest.fixture
def s3(artifact: Artifact, tmp_path: Path) -> Iterator[str]:
    """As much of S3 as a download needs: a web server over `<bucket>/<key>`."""
    folder = tmp_path / "s3" / "models" / "doubler"
    folder.mkdir(parents=True)
    artifact.folder.rename(folder / artifact.manifest.sha256)
    handler = functools.partial(Quiet, directory=str(tmp_path / "s3"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_handler_downloads_its_model_and_answers(
    task: Path, artifact: Artifact, s3: str, tmp_path: Path
) -> None:
    sha256 = artifact.manifest.sha256
    (tmp_path / "elsewhere").mkdir()
    events = [
        proxy_event("POST", "/v2/models/doubler/infer", json.dumps(tiny.REQUEST)),
        proxy_event("GET", "/v2/models/doubler"),
        proxy_event("POST", "/v2/models/doubler/infer", "{"),
    ]
    result = subprocess.run(
        [*ISOLATED, str(task), json.dumps(events)],
        cwd=tmp_path / "elsewhere",
        env={
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": s3,
            "MODEL_NAME": "doubler",
            "MODEL_URI": f"s3://models/doubler/{sha256}/",
            "MODEL_SHA256": sha256,
            "ARTIFACT_CACHE": str(tmp_path / "cache"),
            "METRICS_NAMESPACE": "Inference",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["foreign"] == []
    inference, metadata, bad = report["answers"]
    assert (inference["statusCode"], json.loads(inference["body"])) == (200, tiny.ANSWER), result.stdout
    assert json.loads(metadata["body"])["parameters"] == {"artifact_sha256": sha256}
    assert bad["statusCode"] == 400


def test_a_handler_of_the_artifact_may_import_what_it_is_promised(task: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy, tokenizers; print(tokenizers.Tokenizer)"
    )
    subprocess.run([*ISOLATED[:-1], script, str(task)], check=True, capture_output=True, env={}, timeout=60)


def test_the_publisher_needs_nothing_but_boto3_which_lambda_provides(tmp_path: Path) -> None:
    with zipfile.ZipFile(lambda_zip("publish_artifact", python="host", architecture="host")) as archive:
        archive.extractall(tmp_path)
    script = """
import sys, types
boto3, botocore = types.ModuleType("boto3"), types.ModuleType("botocore")
botocore.exceptions = types.ModuleType("botocore.exceptions")
botocore.exceptions.ClientError = Exception
sys.modules.update({m.__name__: m for m in (boto3, botocore, botocore.exceptions)})
sys.path.insert(0, sys.argv[1])
import handler
"""
    subprocess.run(
        [*ISOLATED[:-1], script, str(tmp_path)], check=True, capture_output=True, env={}, timeout=60
    )


def test_the_drift_function_fits_lambda_and_finds_all_that_it_imports(tmp_path: Path) -> None:
    with zipfile.ZipFile(lambda_zip("drift", python="host", architecture="host")) as archive:
        # 250 MB unzipped; the rest is room for the wheels of the next versions.
        assert sum(member.file_size for member in archive.infolist()) < 200e6
        archive.extractall(tmp_path)
    script = """
import sys, types
sys.modules["boto3"] = types.ModuleType("boto3")  # Lambda provides it
sys.path.insert(0, sys.argv[1])
import handler, shift
print(shift.numeric(*([float(n) for n in range(50)],) * 2).p_value)
"""
    done = subprocess.run(
        [*ISOLATED[:-1], script, str(tmp_path)], check=True, capture_output=True, env={}, timeout=120
    )
    assert done.stdout == b"1.0\n"
