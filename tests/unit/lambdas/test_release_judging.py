"""When a new version is rejected: by errors, latency and predictions, from enough requests on."""

import judging
import pytest
from judging import Side
from settings import Settings

SETTINGS = Settings(
    model="tiny",
    home="cpu",
    name="f",
    validator="v",
    stack="s",
    log_group="g",
    canary_percent=10,
    bake_seconds=60,
    drain_seconds=0,
    update_seconds=0,
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


def test_a_shift_of_predictions_says_which_and_how_far() -> None:
    far = {"test": "ks", "p_value": 1e-9, "psi": 3.1}
    near = {"test": "ks", "p_value": 0.4, "psi": 0.02}
    found = {"outputs": {"score": far, "label": near}, "shifted": ["score"]}
    said = judging.shifted(SETTINGS, found)
    assert said == "its predictions shifted: score by a PSI of 3.1; 0.25 is allowed"
    assert judging.shifted(SETTINGS, found | {"shifted": []}) == ""
