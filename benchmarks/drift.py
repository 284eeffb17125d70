"""How often drift is found where there is none, and how often where there is: `make bench-drift`.

The data are real, and ship with scikit-learn: 569 breast masses of 30 measurements each (Wolberg et al.,
https://doi.org/10.24432/C5DW2B) and 1797 handwritten digits of 64 pixels (Alpaydin and Kaynak,
https://doi.org/10.24432/C50P49). Each repetition draws a baseline and a window at random, which share no
row, and judges them as the function `drift` does, with the defaults of `drift:` in model.yaml. What is drawn
like that differs by chance alone; what is then done to the window is known.

Prints tables in Markdown, and draws docs/images/plot-drift-power.svg. Runs in build/training, as it
needs scikit-learn, with the function's folders on PYTHONPATH (Makefile).
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import shift
from baseline import Baseline
from captured import Exchange
from features import ROWS_PER_REQUEST, Table
from judgement import judge
from sklearn.datasets import load_breast_cancer, load_digits

from inference_runtime.manifest import Manifest, TensorSpec

ROOT = Path(__file__).resolve().parents[1]
LEVEL, PSI = 0.01, 0.2
PLOT = ROOT / "docs" / "images" / "plot-drift-power.svg"

Data = tuple[np.ndarray, np.ndarray]
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], Data]


@dataclass(frozen=True)
class Source:
    """A data set: its rows, its labels, and how many rows the baseline gets."""

    name: str
    rows: np.ndarray
    labels: np.ndarray
    baseline: int


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure false alarms and detection power.")
    parser.add_argument("--repetitions", type=int, default=200, help="of each line")
    options = parser.parse_args()
    masses, digits = load_breast_cancer(), load_digits()
    sources = [
        Source("breast masses", masses.data, masses.target, 300),
        Source("digits", digits.data, digits.target, 800),
    ]
    print(f"| Data | Features | Baseline | Window | Alarms of {2 * options.repetitions} | 95 % interval |")
    print("|---|---|---|---|---|---|")
    for source in sources:
        for window in (200, len(source.rows) - source.baseline):
            alarms = _alarms(source, window, 2 * options.repetitions, _nothing)
            low, high = shift.interval(alarms, 2 * options.repetitions)
            print(
                f"| {source.name} | {source.rows.shape[1] + 1} | {source.baseline} | {window} | {alarms} "
                f"| {low:.1%} to {high:.1%} |",
                flush=True,
            )
    print()
    print("| Data | What was done to the window | found in 200 rows | found in more |")
    print("|---|---|---|---|")
    for source, said, change in _changes(*sources):
        shares = [
            _alarms(source, window, options.repetitions, change) / options.repetitions
            for window in (200, len(source.rows) - source.baseline)
        ]
        more = len(source.rows) - source.baseline
        print(f"| {source.name} | {said} | {shares[0]:.0%} | {shares[1]:.0%} of {more} |", flush=True)
    sizes = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5]
    curves = {
        f"{window} rows": [
            _alarms(sources[1], window, options.repetitions // 2, _moved(size)) / (options.repetitions // 2)
            for size in sizes
        ]
        for window in (200, 500)
    }
    PLOT.write_text(_plot(sizes, curves))
    print(f"\n{PLOT.relative_to(ROOT)}")


def _changes(masses: Source, digits: Source) -> Iterable[tuple[Source, str, Change]]:
    for size in (0.25, 0.5, 1.0):
        yield masses, f"one measurement of 30 moved by {size} of its standard deviations", _moved(size)
    yield masses, "one measurement of 30 spread by half", _spread
    yield digits, "one pixel of 64 moved by 0.5 of its standard deviations", _moved(0.5)
    yield digits, "every pixel a tenth darker", lambda rows, labels, random: (rows * 0.9, labels)
    yield digits, "noise on every pixel, of an eighth of the range", _noisy
    yield digits, "twice as many eights", _more_eights
    yield digits, "5 % of one pixel missing", _missing(0.05)
    yield digits, "10 % of one pixel missing", _missing(0.10)


def _nothing(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
    return rows, labels


def _some_column(rows: np.ndarray, random: np.random.Generator) -> int:
    """One that varies: pixels at the edge are always white."""
    return int(random.choice(np.flatnonzero(rows.std(axis=0) > rows.std(axis=0).max() / 100)))


def _moved(size: float) -> Change:
    def change(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
        column = _some_column(rows, random)
        rows[:, column] += size * rows[:, column].std()
        return rows, labels

    return change


def _spread(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
    column = _some_column(rows, random)
    center = rows[:, column].mean()
    rows[:, column] = center + 1.5 * (rows[:, column] - center)
    return rows, labels


def _noisy(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
    return np.clip(rows + random.normal(0, 2, rows.shape), 0, 16), labels


def _more_eights(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
    eights = np.flatnonzero(labels == 8)
    others = np.flatnonzero(labels != 8)
    gone = random.choice(others, min(len(eights), len(others)), replace=False)
    rows[gone], labels[gone] = rows[random.choice(eights, len(gone))], 8
    return rows, labels


def _missing(share: float) -> Change:
    def change(rows: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Data:
        rows[random.random(len(rows)) < share, _some_column(rows, random)] = np.nan
        return rows, labels

    return change


def _alarms(source: Source, window: int, repetitions: int, change: Change) -> int:
    """In how many of the repetitions something has drifted."""
    width = source.rows.shape[1]
    manifest = Manifest(
        sha256="",
        name="measured",
        version="1",
        platform="",
        model=None,
        handler=None,
        files={},
        inputs=(TensorSpec("x", "FP32", (-1, width)),),
        outputs=(TensorSpec("label", "BYTES", (-1,)),),
    )
    alarms = 0
    for repetition in range(repetitions):
        random = np.random.default_rng([repetition, window, width])
        order = random.permutation(len(source.rows))
        chosen = order[: source.baseline], order[source.baseline : source.baseline + window]
        (before, labels_before), (now, labels_now) = (
            (source.rows[part].astype(float), source.labels[part].copy()) for part in chosen
        )
        now, labels_now = change(now, labels_now, random)
        baseline = Baseline.learn(_table(manifest, before, labels_before), "1", None, ())
        columns = baseline.plan.columns(_table(manifest, now, labels_now))
        alarms += bool(judge(baseline, columns, (0, window), level=LEVEL, psi=PSI).drifted)
    return alarms


def _table(manifest: Manifest, rows: np.ndarray, labels: np.ndarray) -> Table:
    table = Table(manifest, Random(0))  # noqa: S311 (a sample)
    texts = np.array([str(label) for label in labels], object)
    for start in range(0, len(rows), ROWS_PER_REQUEST):
        part = slice(start, start + ROWS_PER_REQUEST)
        table.add(Exchange("", {"x": rows[part]}, {"label": texts[part]}))
    return table


def _plot(sizes: list[float], curves: dict[str, list[float]]) -> str:
    """Shares over sizes, as lines."""
    width, height, left, foot = 560, 280, 44, 40
    colours = ("#9aa7b3", "#1f6fb2")

    def at(size: float, share: float) -> str:
        x = left + (width - left - 90) * size / sizes[-1]
        return f"{x:.1f},{height - foot - (height - foot - 12) * share:.1f}"

    drawn = []
    for colour, shares in zip(colours, curves.values(), strict=True):
        points = " ".join(at(size, share) for size, share in zip(sizes, shares, strict=True))
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for number, (colour, name) in enumerate(zip(colours, curves, strict=True)):
        y = 24 + 18 * number
        drawn.append(f'<text x="{width - 70}" y="{y}" fill="{colour}">{name}</text>')
    for share in (0, 0.5, 1):
        x, low = at(0, share).split(",")
        drawn.append(f'<path d="M{x} {low}H{width - 90}" stroke="#dde3e8"/>')
        drawn.append(f'<text x="{left - 6}" y="{float(low) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for size in sizes:
        x, low = at(size, 0).split(",")
        drawn.append(f'<text x="{x}" y="{float(low) + 16:.1f}" text-anchor="middle">{size:g}</text>')
    said = "one pixel of 64 moved, in its standard deviations"
    drawn.append(f'<text x="{left}" y="{height - 6}">{said}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui,sans-serif" font-size="12" fill="#51606d">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(drawn)}</svg>\n'
    )


if __name__ == "__main__":
    main()
