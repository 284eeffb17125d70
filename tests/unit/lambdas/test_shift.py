"""What must hold of the tests of drift whatever the data are."""

import numpy as np
import shift
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

SAMPLES = arrays.arrays(
    np.float64, st.integers(20, 60), elements=st.floats(-1e6, 1e6, allow_nan=False, width=32)
)
COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 200), min_size=1)


@given(SAMPLES)
def test_a_sample_has_not_moved_from_itself(sample: np.ndarray) -> None:
    found = shift.numeric(sample, sample)
    assert (found.p_value, round(found.psi, 12)) == (1, 0)


@given(SAMPLES, SAMPLES)
def test_the_test_of_numbers_is_the_same_both_ways(one: np.ndarray, other: np.ndarray) -> None:
    assert shift.numeric(one, other).p_value == shift.numeric(other, one).p_value


@given(SAMPLES, SAMPLES, st.sampled_from([0.5, 2.0, 1024.0]))
def test_units_do_not_matter(before: np.ndarray, now: np.ndarray, unit: float) -> None:
    found, scaled = shift.numeric(before, now), shift.numeric(before * unit, now * unit)
    assert found == scaled


@given(COUNTS, COUNTS)
def test_neither_do_the_names_of_categories(before: dict[str, int], now: dict[str, int]) -> None:
    def renamed(counts: dict[str, int]) -> dict[str, int]:
        return {f"{'z' if name > 'd' else 'y'}{name}": count for name, count in counts.items()}

    found = shift.categorical(before, now)
    again = shift.categorical(renamed(before), renamed(now))
    np.testing.assert_allclose((found.p_value, found.psi), (again.p_value, again.psi), atol=1e-9)
    assert 0 <= found.p_value <= 1
    assert found.psi >= 0


@given(COUNTS)
def test_counts_have_not_moved_from_themselves(counts: dict[str, int]) -> None:
    found = shift.categorical(counts, counts)
    np.testing.assert_allclose((found.p_value, found.psi), (1, 0), atol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_corrected_p_value_is_never_smaller_and_keeps_its_rank(p_values: list[float]) -> None:
    corrected = shift.adjusted(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


@settings(max_examples=2)
@given(st.integers(0, 2**32 - 1))
def test_of_many_tests_of_nothing_few_runs_find_anything(seed: int) -> None:
    random = np.random.default_rng(seed)
    runs = [[shift.numeric(*random.normal(size=(2, 200))).p_value for _ in range(20)] for _ in range(40)]
    # Without correction, 26 of the 40 would on average; more than 10 of 40 at 5 % is one chance in a million.
    assert sum(min(shift.adjusted(run)) < 0.05 for run in runs) <= 10
    assert sum(min(run) < 0.05 for run in runs) > 10


def test_a_psi_is_what_it_is_by_hand() -> None:
    # (0.6 - 0.3) ln(0.6/0.3) + (0.4 - 0.7) ln(0.4/0.7), but for the half that is added to each count.
    assert round(shift.psi([60000, 40000], [30000, 70000]), 3) == 0.376


def test_an_interval_is_wilsons() -> None:
    low, high = shift.interval(80, 100)
    assert (round(low, 3), round(high, 3)) == (0.711, 0.867)
