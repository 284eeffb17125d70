"""A window's features beside the baseline's, and what is to be made of it.

Three questions of each feature, each a test: do its values come from the same distribution, are as many of
them missing, and are there values such as the baseline never had. A fourth, of all requests together: do they
fit the signature. The p-values of all of them are corrected together (`shift.adjusted`), and what is
significant counts only if it is also large: by PSI, or by a share of the rows.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import shift
from baseline import Baseline, Known, known
from features import CATEGORY, Columns, Feature

MISSING = 0.05
"""By how much the share of missing values must differ."""

STRANGE = 0.01
"""Share of values, or of requests, that may be such as the baseline never had."""

FEWEST = 20
"""Values of a feature without which nothing is said of it."""

MOST_FEATURES = 200
"""Further ones are left out, and that is said: each needs its share of the false alarms that are allowed."""


@dataclass
class Finding:
    """What was found about one feature: the test of its distribution, the shares, and what has drifted."""

    side: str
    name: str
    kind: str
    test: str
    p_value: float
    psi: float
    missing: float
    missing_before: float
    strange: float
    samples: int
    drifted: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Verdict:
    """
    Args:
        misfits: the share of the captures that are not as the signature says.
        left_out: features beyond the number that is looked at.
    """

    findings: list[Finding]
    misfits: float
    misfits_drifted: bool
    left_out: int

    @property
    def drifted(self) -> list[str]:
        """What has drifted, as people read it: `input measurements[3]: values`."""
        said = [
            f"{each.side} {each.name}: {', '.join(each.drifted)}" for each in self.findings if each.drifted
        ]
        return said + (["requests: do not fit the signature"] if self.misfits_drifted else [])


def judge(
    baseline: Baseline,
    columns: Columns,
    misfits: tuple[int, int],
    *,
    level: float,
    psi: float,
    ignore: Iterable[str] = (),
) -> Verdict:
    """
    Args:
        misfits: how many captures did not fit the signature, and of how many.
        level: the chance of a false alarm that is allowed.
        psi: the PSI from which on a shift is large.
        ignore: tensors and features that nothing is asked about.
    """
    ignored = set(ignore)
    window = known(columns)
    both = [
        feature
        for feature, each in baseline.features.items()
        if feature in window
        and min(each.rows, window[feature].rows) >= FEWEST
        and not ignored & {feature.name, feature.name.partition("[")[0].partition(":")[0]}
    ]
    asked, left_out = both[:MOST_FEATURES], max(0, len(both) - MOST_FEATURES)
    p_values, findings = [], []
    for feature in asked:
        finding, tests = _compared(feature, baseline.features[feature], window[feature])
        findings.append(finding)
        p_values.extend(tests)
    count, of = misfits
    p_values.append(shift.exceeds(count, of, STRANGE))
    corrected = shift.adjusted(p_values)
    for number, finding in enumerate(findings):
        values, gone, strange = corrected[3 * number : 3 * number + 3]
        finding.p_value = values
        if values < level and finding.psi >= psi:
            finding.drifted.append("values")
        if gone < level and abs(finding.missing - finding.missing_before) >= MISSING:
            finding.drifted.append("missing values")
        if strange < level:
            finding.drifted.append("values never seen before")
    return Verdict(findings, count / of if of else 0.0, corrected[-1] < level, left_out)


def _compared(feature: Feature, before: Known, now: Known) -> tuple[Finding, list[float]]:
    """The finding, and the p-values of its three tests, not corrected."""
    there = (before.rows - before.missing, now.rows - now.missing)
    if min(there) < FEWEST:
        moved = shift.Shift("none", 1.0, 0.0)
    elif feature.kind == CATEGORY:
        moved = shift.categorical(before.counts, now.counts)
    else:
        moved = shift.numeric(before.values, now.values)
    strange, limit = _strange(feature, before, now) if there[0] >= FEWEST else (0, 1.0)
    finding = Finding(
        side=feature.side,
        name=feature.name,
        kind=feature.kind,
        test=moved.test,
        p_value=moved.p_value,
        psi=moved.psi,
        missing=now.missing / now.rows,
        missing_before=before.missing / before.rows,
        strange=strange / there[1] if there[1] else 0.0,
        samples=now.rows,
        drifted=[],
    )
    gone = shift.more_often(before.missing, before.rows, now.missing, now.rows)
    return finding, [moved.p_value, gone, shift.exceeds(strange, there[1], limit)]


def _strange(feature: Feature, before: Known, now: Known) -> tuple[int, float]:
    """How many values are such as the baseline never had, and the share of them that is no surprise.

    A category is strange that is new: as many of those are to come as the baseline had categories of a single
    row (Good and Turing). A number is strange beyond the baseline's ends by more than they lie apart.
    """
    if feature.kind == CATEGORY:
        once = sum(count == 1 for count in before.counts.values())
        new = sum(count for name, count in now.counts.items() if name not in before.counts)
        return new, min(1.0, max(STRANGE, 2 * once / max(1, sum(before.counts.values()))))
    low, high = float(before.values[0]), float(before.values[-1])
    span = high - low
    return int(((now.values < low - span) | (now.values > high + span)).sum()), STRANGE
