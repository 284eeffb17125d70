"""Releases that take minutes: of an endpoint, two at once, shifted predictions, a worker that dies, and
deployments meanwhile and afterwards.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import ROOT
from catalog.loader import load_platform
from catalog.model import ModelSpec
from tests.integration.platform.changes.deploying import deploy
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import (
    NAMES,
    Callers,
    ended,
    live,
    serving,
    settings,
    start,
)
from tests.integration.platform.versions import stored

pytestmark = pytest.mark.changes

CPU, GPU, CAPTURED = "wine-cultivar", "text-embedding", "file-type"
UNHEALTHY = """
import os

if "SAGEMAKER_BIND_TO_PORT" in os.environ:  # not where it is tried before the release
    os._exit(1)
"""
LIES = """
import os

truth, serves = postprocess, os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "").endswith("-file-type")

def postprocess(*arguments):
    answers = truth(*arguments)
    return {name: array * 0 if serves and name == "score" else array for name, array in answers.items()}
"""


@pytest.fixture(autouse=True)
def quick(platform: Platform) -> Iterator[None]:
    with (
        settings(platform, CPU, canary_percent=50, bake_seconds=4, minimum_requests=10),
        settings(platform, GPU, canary_percent=50, bake_seconds=4, minimum_requests=10),
    ):
        yield


def judged(platform: Platform, model: str, version: str, seconds: float = 180) -> None:
    """Wait until the release of a version is judged."""
    deadline = time.monotonic() + seconds
    while (found := listed(platform, model, version))["status"] != "JUDGING":
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def listed(platform: Platform, model: str, version: str) -> dict[str, Any]:
    """What the history says of a version's last release."""
    done = platform.inferctl("--json", "releases", model)
    found = [one for one in json.loads(done.stdout)["releases"] if one["version"] == version]
    return found[0] if found else {"status": "none"}


def test_an_endpoint_is_released_refused_what_does_not_start_and_brought_back(platform: Platform) -> None:
    first, callers = live(platform, GPU), Callers(platform, GPU)
    new = stored(platform, GPU, "1.1.0")
    with callers.calling(0.2):
        release = ended(platform, GPU, start(platform, GPU, "1.1.0", new))
        assert (release.status, release.reason) == ("LIVE", "")
        assert serving(platform, GPU) == live(platform, GPU) == new

        # SageMaker says InService of this one, and takes it back by itself.
        handler = (ROOT / "models" / GPU / "handler.py").read_text()
        unhealthy = stored(platform, GPU, "1.2.0", handler=f"{handler}\n{UNHEALTHY}\n")
        release = ended(platform, GPU, start(platform, GPU, "1.2.0", unhealthy))
        assert release.status == "ROLLED_BACK"
        assert serving(platform, GPU) == live(platform, GPU) == new

        done = platform.inferctl("--json", "rollback", GPU, "--to", "1.0.0")
        assert done.returncode == 0, done.stderr
        assert serving(platform, GPU) == live(platform, GPU) == first
    assert callers.failures == []


def test_releases_of_one_model_queue(platform: Platform) -> None:
    versions = {f"2.0.{n}": stored(platform, CPU, f"2.0.{n}") for n in (1, 2)}
    executions = [start(platform, CPU, version, sha256) for version, sha256 in versions.items()]
    first, second = (ended(platform, CPU, execution) for execution in executions)
    assert (first.status, second.status) == ("LIVE", "LIVE")
    assert second.previous == first.sha256
    assert second.ended > first.ended
    assert serving(platform, CPU) == live(platform, CPU) == versions["2.0.2"]


def test_a_worker_that_dies_is_replaced_and_an_execution_that_was_ended_is_put_right(
    platform: Platform,
) -> None:
    callers, new = Callers(platform, CPU), stored(platform, CPU, "2.1.0")
    # It is judged until the settings are as they were.
    endless = {"canary_percent": 50, "bake_seconds": 3600}
    with callers.calling():
        with settings(platform, CPU, **endless):
            execution = start(platform, CPU, "2.1.0", new)
            judged(platform, CPU, "2.1.0")
            killed = [os.kill(pid, signal.SIGKILL) for pid in workers("Release")]
            assert killed
        assert ended(platform, CPU, execution).status == "LIVE"
        assert serving(platform, CPU) == live(platform, CPU) == new

        # Now the whole execution, while both versions serve.
        second, third = (stored(platform, CPU, version) for version in ("2.1.1", "2.1.2"))
        with settings(platform, CPU, **endless):
            execution = start(platform, CPU, "2.1.1", second)
            judged(platform, CPU, "2.1.1")
            platform.aws("stepfunctions").stop_execution(executionArn=execution)
        release = ended(platform, CPU, start(platform, CPU, "2.1.2", third))
        assert (release.status, release.previous) == ("LIVE", new)
        assert listed(platform, CPU, "2.1.1")["status"] == "FAILED"
        assert serving(platform, CPU) == live(platform, CPU) == third
    assert callers.failures == []


def workers(construct: str) -> list[int]:
    """Processes of the functions whose names contain a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(v.startswith(b"AWS_LAMBDA_FUNCTION_NAME=") and construct.encode() in v for v in variables):
                found.append(int(entry.name))
    return found


def test_a_version_whose_predictions_shift_goes_back(platform: Platform) -> None:
    first, callers = live(platform, CAPTURED), Callers(platform, CAPTURED)
    handler = (ROOT / "models" / CAPTURED / "handler.py").read_text()
    lies = f"{handler}\n{LIES}\n"
    shifted = stored(platform, CAPTURED, "1.1.0", handler=lies)
    with (
        settings(platform, CAPTURED, canary_percent=50, bake_seconds=120, minimum_requests=10),
        callers.calling(),
    ):
        release = ended(platform, CAPTURED, start(platform, CAPTURED, "1.1.0", shifted))
    assert (release.status, callers.failures) == ("ROLLED_BACK", [])
    assert "predictions shifted" in release.reason
    assert serving(platform, CAPTURED) == live(platform, CAPTURED) == first


def test_a_deployment_fails_cleanly_during_a_release_and_changes_nothing_after_it(
    platform: Platform, tmp_path: Path
) -> None:
    base = load_platform(ROOT, "local")
    changed: list[ModelSpec] = [
        spec.model_copy(update={"cpu": spec.cpu.model_copy(update={"memory_mb": 640})})
        if spec.target == "cpu" and spec.name == CPU
        else spec
        for spec in base.models
    ]
    new = stored(platform, CPU, "3.0.0")
    # For as long as the deployment takes: a release reads its settings each time it looks.
    with settings(platform, CPU, canary_percent=50, bake_seconds=3600):
        execution = start(platform, CPU, "3.0.0", new)
        judged(platform, CPU, "3.0.0")
        weights = alias(platform)
        with pytest.raises(AssertionError, match="denied by stack policy"):
            deploy(platform, base.environment, changed, tmp_path / "during")
        assert alias(platform) == weights
    assert ended(platform, CPU, execution).status == "LIVE"

    before = alias(platform), function(platform)
    deploy(platform, base.environment, base.models, tmp_path / "after")
    assert (alias(platform), function(platform)) == before
    assert serving(platform, CPU) == live(platform, CPU) == new

    deploy(platform, base.environment, changed, tmp_path / "changed")
    assert function(platform)["MemorySize"] == 640
    assert serving(platform, CPU) == live(platform, CPU) == new


def alias(platform: Platform) -> dict[str, Any]:
    found = platform.aws("lambda").get_alias(FunctionName=NAMES.model(CPU), Name="live")
    return {name: found.get(name) for name in ("FunctionVersion", "RoutingConfig")}


def function(platform: Platform) -> dict[str, Any]:
    found = platform.aws("lambda").get_function_configuration(FunctionName=NAMES.model(CPU), Qualifier="live")
    return {name: found.get(name) for name in ("MemorySize", "Version", "RevisionId")}
