"""Releases of a CPU model, while clients call it: what they see, and what the history says afterwards."""

import json
from collections.abc import Iterator

import pytest

from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import Callers, ended, live, serving, settings, start
from tests.integration.platform.versions import stored

pytestmark = pytest.mark.changes

MODEL = "wine-cultivar"

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
