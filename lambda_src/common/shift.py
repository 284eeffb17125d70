"""Whether one sample comes from another distribution than a second: tests, the size of a change, and what to
make of many tests at once. The mathematics are SciPy's.

A p-value says how surprising a difference is; with many samples the smallest is. The population stability
index (PSI) says how large it is: 0.1 is usually called small, 0.2 and more large. Whoever judges asks both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

BINS = 10
RARE = 5
"""Expected count below which a category joins the others: the chi-square distribution holds from there on."""
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Shift:
    """The outcome of a test: which, its p-value, and the PSI, 0 where nothing changed."""

    test: str
    p_value: float
    psi: float


def numeric(before: Floats, now: Floats) -> Shift:
    """Kolmogorov and Smirnov's test of two samples of numbers, none of them NaN; PSI over the deciles of
    `before`.
    """
    # Deciles of few different values repeat; then there are fewer.
    edges = np.unique(np.quantile(before, np.linspace(0, 1, BINS + 1)[1:-1]))
    # One that is as frequent as a bin has a bin to itself: what follows a constant may lie on either side.
    alone = np.array([edge for edge in edges if np.mean(before == edge) >= 1 / BINS])
    counts = np.array([_binned(values, edges, alone) for values in (before, now)])
    tested = stats.ks_2samp(before, now, method="asymp")
    return Shift("ks", float(tested.pvalue), psi(*counts[:, counts.any(axis=0)]))


def categorical(before: Mapping[str, int], now: Mapping[str, int]) -> Shift:
    """Pearson's chi-square test of two counts of categories, and PSI over them; rare ones are counted
    together.
    """
    table = _pooled(before, now)
    if table.shape[1] < 2:
        return Shift("chi-square", 1.0, 0.0)
    tested = stats.chi2_contingency(table, correction=False)
    return Shift("chi-square", float(tested.pvalue), psi(*table))


def psi(before: Any, now: Any) -> float:
    """The population stability index of two vectors of counts: relative entropy both ways, added.

    Half an observation is added to each count, so that an empty one is no infinity.
    """
    smoothed = [np.asarray(counts, float) + 0.5 for counts in (before, now)]
    return float(stats.entropy(*smoothed) + stats.entropy(*smoothed[::-1]))


def more_often(before: int, of_before: int, now: int, of_now: int) -> float:
    """The p-value of Fisher's exact test that something is as frequent as it was."""
    if before == now == 0:
        return 1.0
    return float(stats.fisher_exact([[before, of_before - before], [now, of_now - now]]).pvalue)


def exceeds(count: int, of: int, limit: float) -> float:
    """The p-value of an exact binomial test that no more than the share `limit` is so."""
    return float(stats.binomtest(count, of, limit, alternative="greater").pvalue) if count else 1.0


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = stats.binomtest(count, of).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The p-values of tests that were made at once, corrected by Benjamini and Yekutieli.

    If nothing has changed, the chance that *any* of them falls below a level is no more than the level,
    however the tested quantities depend on each other.
    """
    return [float(p) for p in stats.false_discovery_control(p_values, method="by")] if p_values else []


def _binned(values: Floats, edges: Floats, alone: Floats) -> NDArray[np.int64]:
    """How many values lie in each bin: from an edge on; where it is in `alone`, exactly there, and beyond."""
    places = np.searchsorted(edges, values, "right") + np.searchsorted(alone, values, "left")
    return np.bincount(places, minlength=len(edges) + len(alone) + 1)


def _pooled(before: Mapping[str, int], now: Mapping[str, int]) -> NDArray[np.int64]:
    """Counts of both, one row each; categories that are expected fewer than RARE times are one."""
    names = sorted(before.keys() | now.keys())
    table = np.array([[counts.get(name, 0) for name in names] for counts in (before, now)], np.int64)
    if not names or 0 in table.sum(axis=1):
        return table[:, :0]
    expected = stats.contingency.expected_freq(table).min(axis=0)
    rare = expected < RARE
    pooled = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]) if rare.any() else table
    return pooled[:, pooled.sum(axis=0) > 0]
