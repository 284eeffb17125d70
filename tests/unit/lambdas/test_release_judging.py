"""When a new version is rejected: by errors, latency and predictions, from enough requests on."""

import random
from typing import Any

import judging
import pytest
from judging import Side
from settings import Settings

from tests.unit.lambdas.function import imported

SETTINGS = Settings(
    model="tiny",
    home="cpu",
    name="f",
    validator="v",
    stack="s",
    log_group="g",
    canary_percent=10,
    bake_seconds=60,
    startup_seconds=0,
    alarms=[],
    public=False,
    availability_percent=99.9,
    p99_ms=300,
    minimum_requests=50,
    prediction_shift=0.25,
    captures=None,
)


@pytest.mark.parametrize(
    ("new", "old", "rejected"),
    [
        pytest.param(Side(10, 10), Side(1000, 0), True, id="every request failed"),
        pytest.param(Side(1000, 100), Side(1000, 0), True, id="a tenth failed"),
        pytest.param(Side(2, 2), Side(1000, 0), False, id="two failures are chance"),
        pytest.param(Side(10_000, 9), Side(10_000, 9), False, id="within the objective"),
        pytest.param(Side(1000, 50), Side(1000, 50), False, id="as bad as the old one"),
        pytest.param(Side(1000, 200), Side(1000, 50), True, id="four times as bad as the old one"),
        pytest.param(Side(0, 0), Side(1000, 0), False, id="no requests"),
    ],
)
def test_errors(new: Side, old: Side, rejected: bool) -> None:
    assert bool(judging.too_many_errors(SETTINGS, new, old)) == rejected


@pytest.mark.parametrize(
    ("new", "old", "rejected"),
    [
        pytest.param(Side(100, 0, 900), Side(100, 0, 100), True, id="misses the objective"),
        pytest.param(Side(100, 0, 299), Side(100, 0, 100), False, id="slower, within the objective"),
        pytest.param(Side(100, 0, 500), Side(100, 0, 450), False, id="as slow as the old one"),
        pytest.param(Side(49, 0, 900), Side(100, 0, 100), False, id="too few requests to the new one"),
        pytest.param(Side(100, 0, 900), Side(49, 0, 100), False, id="too few requests to the old one"),
        pytest.param(Side(100, 0, 900), Side(), True, id="nothing to compare with but the objective"),
    ],
)
def test_latency(new: Side, old: Side, rejected: bool) -> None:
    assert bool(judging.too_slow(SETTINGS, new, old)) == rejected


def normal(mean: float, count: int = 2000) -> list[float]:
    generator = random.Random(mean)  # noqa: S311 (no secret)
    return [generator.gauss(mean, 1) for _ in range(count)]


@pytest.mark.parametrize(
    ("old", "new", "rejected"),
    [
        pytest.param(normal(0), normal(0.0001), False, id="numbers of one distribution"),
        pytest.param(normal(0), normal(1), True, id="numbers a standard deviation apart"),
        pytest.param(["cat", "dog"] * 500, ["dog", "cat"] * 400, False, id="texts as often as before"),
        pytest.param(["cat"] * 900 + ["dog"] * 100, ["cat"] * 100 + ["dog"] * 900, True, id="other texts"),
        pytest.param(["cat"] * 1000, ["bird"] * 1000, True, id="texts that were never answered"),
        pytest.param([1.0] * 1000, [1.0] * 900, False, id="a constant"),
        pytest.param([1.0] * 1000, [2.0] * 900, True, id="another constant"),
    ],
)
def test_predictions(old: list[Any], new: list[Any], rejected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = imported("compare_predictions")
    found = {"outputs": {"y": compare.distance(old, new)}}
    assert bool(judging.shifted(SETTINGS, found)) == rejected
