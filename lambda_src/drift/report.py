"""The report for people: one HTML page with its plots in it, which loads nothing and runs nothing.

Names of categories come from requests: everything that is shown is escaped.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from baseline import Known
from features import CATEGORY, Feature
from judgement import Finding
from shift import OTHERS

MOST_PLOTS = 60
BARS = 24
CATEGORY_BARS = 10
WIDTH, HEIGHT, FOOT = 300, 90, 16

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b2733;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin-top:2rem}
.verdict{padding:.6rem 1rem;border-left:.4rem solid #2e7d4f;background:#eef7f1;margin:1rem 0}
.verdict.drifted{border-color:#b3541e;background:#fdf1ea}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;vertical-align:top;
border-bottom:1px solid #dde3e8;font-variant-numeric:tabular-nums}td.n{text-align:right}
.drifted td:first-child{font-weight:600;color:#b3541e}
figure{display:inline-block;margin:.5rem 1rem .5rem 0}figcaption{font-size:.85rem}
svg .b{fill:#9aa7b3}svg .w{fill:#1f6fb2;fill-opacity:.65}svg .d{fill:#c8652a;fill-opacity:.7}
svg text{font:10px system-ui,sans-serif;fill:#51606d}
"""


def page(
    facts: Sequence[tuple[str, str]],
    drifted: Sequence[str],
    findings: Sequence[Finding],
    before: dict[Feature, Known],
    now: dict[Feature, Known],
) -> str:
    """
    Args:
        facts: what is said above everything, as name and value.
        drifted: what has drifted, one line each.
    """
    order = sorted(findings, key=lambda each: (not each.drifted, -each.psi))
    kinds = {(feature.side, feature.name): feature for feature in before}
    plots = []
    for each in order[:MOST_PLOTS]:
        feature = kinds[each.side, each.name]
        plots.append(_figure(each, feature, before[feature], now[feature]))
    verdict = "Nothing has drifted."
    if drifted:
        verdict = f"Drifted:<ul>{''.join(f'<li>{escape(each)}</li>' for each in drifted)}</ul>"
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'\">",
            f"<title>Drift: {escape(facts[0][1])}</title><style>{STYLE}</style>",
            f"<h1>{escape(facts[0][1])}</h1>",
            f'<div class="verdict{" drifted" if drifted else ""}">{verdict}</div>',
            "<table>",
            *(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in facts[1:]),
            "</table><h2>Features</h2><table><tr><th>Feature<th>Test<th>p, corrected<th>PSI"
            "<th>Missing, before<th>now<th>Never seen<th>Rows",
            *(_row(each) for each in order),
            "</table><h2>Distributions</h2><p>Grey is the baseline, in colour what is compared with it.</p>",
            *plots,
            "</html>",
        ]
    )


def _row(each: Finding) -> str:
    cells = [
        f"{each.p_value:.2g}",
        f"{each.psi:.3f}",
        f"{each.missing_before:.1%}",
        f"{each.missing:.1%}",
        f"{each.strange:.1%}",
        str(each.samples),
    ]
    return (
        f"<tr{' class=drifted' if each.drifted else ''}><td>{escape(f'{each.side} {each.name}')}"
        f"<td>{escape(each.test)}{''.join(f'<td class=n>{cell}' for cell in cells)}"
    )


def _figure(finding: Finding, feature: Feature, before: Known, now: Known) -> str:
    caption = escape(f"{feature.side} {feature.name}")
    drawn = _categories(before, now) if feature.kind == CATEGORY else _histogram(before, now)
    if drawn is None:
        return ""
    labels, shares = drawn
    bars = _bars(shares, "d" if finding.drifted else "w")
    title = f"{caption}: PSI {finding.psi:.3f}"
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT + FOOT}" role="img"><title>{title}</title>'
        f"{bars}{labels}</svg><figcaption>{title}</figcaption></figure>"
    )


def _bars(shares: Sequence[Any], window: str) -> str:
    top = max(float(np.max(each)) for each in shares) or 1.0
    step = WIDTH / len(shares[0])
    drawn = []
    for kind, inset, each in zip(("b", window), (0.0, 0.25), shares, strict=True):
        for number, share in enumerate(each):
            height = HEIGHT * float(share) / top
            drawn.append(
                f'<rect class="{kind}" x="{number * step + step * inset:.1f}" y="{HEIGHT - height:.1f}" '
                f'width="{step * (0.95 - 2 * inset):.1f}" height="{height:.1f}"/>'
            )
    return "".join(drawn)


def _histogram(before: Known, now: Known) -> tuple[str, list[Any]] | None:
    if not len(before.values) or not len(now.values):
        return None
    ends = [np.quantile(each.values, (0.005, 0.995)) for each in (before, now)]
    low, high = float(min(ends[0][0], ends[1][0])), float(max(ends[0][1], ends[1][1]))
    edges = np.linspace(low, high if high > low else low + 1, BARS + 1)
    shares = [
        np.histogram(np.clip(each.values, edges[0], edges[-1]), edges)[0] / len(each.values)
        for each in (before, now)
    ]
    foot = HEIGHT + FOOT - 4
    labels = (
        f'<text x="0" y="{foot}">{low:.4g}</text>'
        f'<text x="{WIDTH}" y="{foot}" text-anchor="end">{high:.4g}</text>'
    )
    return labels, shares


def _categories(before: Known, now: Known) -> tuple[str, list[Any]] | None:
    totals = [max(1, sum(each.counts.values())) for each in (before, now)]
    names = sorted(
        before.counts.keys() | now.counts.keys(),
        key=lambda name: (
            -max(before.counts.get(name, 0) / totals[0], now.counts.get(name, 0) / totals[1]),
            name,
        ),
    )
    if not names:
        return None
    shown, rest = names[:CATEGORY_BARS], names[CATEGORY_BARS:]
    shares = [
        [each.counts.get(name, 0) / total for name in shown]
        + ([sum(each.counts.get(name, 0) for name in rest) / total] if rest else [])
        for each, total in zip((before, now), totals, strict=True)
    ]
    named = [*shown, OTHERS] if rest else shown
    step = WIDTH / len(named)
    most = max(3, int(step / 6))
    labels = "".join(
        f'<text x="{(number + 0.5) * step:.1f}" y="{HEIGHT + FOOT - 4}" text-anchor="middle">'
        f"{escape(name if len(name) <= most else name[: most - 1] + '…')}</text>"
        for number, name in enumerate(named)
    )
    return labels, shares
