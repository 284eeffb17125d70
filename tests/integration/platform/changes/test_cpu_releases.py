"""Releases of a CPU model, while clients call it: what they see, and what the history says afterwards."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

from app import ROOT
from inferctl import releases
from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import Callers, ended, live, serving, settings, start
from tests.integration.platform.versions import stored

pytestmark = pytest.mark.changes

MODEL, OTHER = "wine-cultivar", "pii-redaction"

BREAKS_WHERE_IT_SERVES = """
import os

calls = 0

def preprocess(inputs, state):
    global calls
    calls += 1
    # The first is the warm-up. What tries it before the release finds nothing.
    if calls > 1 and os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "").endswith("-wine-cultivar"):
        raise RuntimeError("a bug")
    return inputs
"""

SLOW_WHERE_IT_SERVES = """
import os, time

def preprocess(inputs, state):
    # What tries it before the release finds it quick.
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "").endswith("-wine-cultivar"):
        time.sleep(2)
    return inputs
"""


@pytest.fixture
def canary(platform: Platform) -> Iterator[None]:
    with settings(platform, MODEL, canary_percent=50, bake_seconds=4, minimum_requests=10):
        yield


def test_a_good_version_goes_live_and_a_rollback_brings_the_old_one_back(
    platform: Platform, canary: None
) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL)
    new = stored(platform, MODEL, "1.0.1")
    with callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.0.1", new))
    assert (release.status, release.reason, release.previous) == ("LIVE", "", first)
    assert serving(platform, MODEL) == live(platform, MODEL) == new
    assert callers.failures == []
    assert callers.versions.keys() == {"1.0.0", "1.0.1"}

    done = platform.inferctl("--json", "rollback", MODEL, "--why", "it was a test")
    assert done.returncode == 0, done.stderr
    back = json.loads(done.stdout)
    assert (back["status"], back["source"], back["version"]) == ("LIVE", "rollback", "1.0.0")
    assert serving(platform, MODEL) == live(platform, MODEL) == first
    listed = json.loads(platform.inferctl("--json", "releases", MODEL).stdout)["releases"]
    assert [one["why"] for one in listed[:2]] == ["it was a test", "a test"]


def test_a_version_that_fails_goes_back_and_costs_no_more_than_its_share(
    platform: Platform, canary: None
) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL)
    bad = stored(platform, MODEL, "1.0.2", handler=BREAKS_WHERE_IT_SERVES)
    with settings(platform, MODEL, canary_percent=20, bake_seconds=60), callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.0.2", bad))
    assert release.status == "ROLLED_BACK"
    assert "requests failed" in release.reason
    assert serving(platform, MODEL) == live(platform, MODEL) == first
    # A share of a fifth, with what chance may add.
    assert 0 < len(callers.failures) < 0.4 * callers.calls


def test_a_damaged_version_is_never_given_a_request(platform: Platform, canary: None) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL)
    damaged = stored(platform, MODEL, "1.0.3", damage={"model.onnx": b"other bytes"})
    with callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.0.3", damaged))
    assert (release.status, callers.failures) == ("REFUSED", [])
    assert "model.onnx" in release.reason
    assert serving(platform, MODEL) == live(platform, MODEL) == first


def test_a_version_that_is_slow_under_requests_goes_back(platform: Platform, canary: None) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL)
    slow = stored(platform, MODEL, "1.0.4", handler=SLOW_WHERE_IT_SERVES)
    with settings(platform, MODEL, canary_percent=20, bake_seconds=120), callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.0.4", slow))
    assert release.status == "ROLLED_BACK"
    assert "99 of 100 requests took" in release.reason
    assert release.metrics["requests"]["new"] >= 10
    assert release.metrics["p99_ms"]["new"] > 2000
    assert serving(platform, MODEL) == live(platform, MODEL) == first
    assert callers.failures == []
    # A share of a fifth, with what chance may add.
    assert 0 < callers.versions["1.0.4"] < 0.4 * callers.calls


def test_releases_of_two_models_run_side_by_side_and_a_watcher_sees_both(platform: Platform) -> None:
    aws = platform.deployed.aws
    new = {model: stored(platform, model, "1.9.0") for model in (MODEL, OTHER)}
    quick = {"canary_percent": 50, "bake_seconds": 3600}
    with settings(platform, MODEL, **quick), settings(platform, OTHER, **quick):
        executions = {model: start(platform, model, "1.9.0", sha256) for model, sha256 in new.items()}

        def judged() -> bool:
            found = releases.under_way(aws, "local", list(new))
            return [one.status for one in found] == ["JUDGING", "JUDGING"]

        # Neither waits for the other: both are under way at one time.
        until(judged, timeout=120)
        watcher = subprocess.Popen(
            [sys.executable, "-m", "inferctl", "--json", "status", "--watch"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=platform.variables,
        )  # fmt: skip
        assert watcher.stderr is not None
        seen = [watcher.stderr.readline().strip(), watcher.stderr.readline().strip()]
    done = {model: ended(platform, model, execution) for model, execution in executions.items()}
    out, rest = watcher.communicate(timeout=120)
    seen += rest.splitlines()

    assert [release.status for release in done.values()] == ["LIVE", "LIVE"]
    assert {model: serving(platform, model) for model in new} == new
    assert {model: live(platform, model) for model in new} == new
    starts, ends = (
        [datetime.fromisoformat(getattr(one, when)) for one in done.values()] for when in ("started", "ended")
    )
    assert max(starts) < min(ends)
    for model in new:
        told = [line for line in seen if line.startswith(f"{model} 1.9.0: ")]
        assert "JUDGING" in told[0]
        assert told[-1].startswith(f"{model} 1.9.0: LIVE")
        assert len(set(told)) == len(told)
    assert watcher.returncode == 0
    # It ends with the state of everything.
    assert {one["name"] for one in json.loads(out)["models"]} >= new.keys()
