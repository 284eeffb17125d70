"""What was measured, as a table, as JSON, and as a plot."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import escape

from inferctl.load import Result

OURS = "this server"


@dataclass(frozen=True)
class Point:
    """One measurement. `round` counts from 0; `alone` are the rows a second that the engine alone gave
    before the server was loaded, one after the other on all cores, and `ours` the requests a second that this
    server gave just before over as many connections; 0 if it was not asked.
    """

    model: str
    server: str
    setting: str
    round: int
    start_seconds: float
    rss_mb: float
    alone: float
    ours: float
    result: Result


@dataclass(frozen=True)
class Run:
    """All of a run. `limits`: model -> connections -> the most rows a second that the engine alone gives with
    as many rows at hand, before each round and after the last.
    """

    machine: dict[str, Any]
    points: Sequence[Point]
    limits: dict[str, dict[int, list[float]]]
    unavailable: dict[str, str]

    def document(self) -> dict[str, Any]:
        """As JSON, with the summary that the table shows."""
        return {
            "machine": self.machine,
            "unavailable": self.unavailable,
            "limits": self.limits,
            "summary": [asdict(line) for line in summary(self)],
            "points": [asdict(point) | {"result": point.result.document()} for point in self.points],
        }


@dataclass(frozen=True)
class Line:
    """A server at a number of connections, at its best setting there: medians over the rounds, and the range.

    `of_limit` is its share of the most that the engine alone gives, `of_alone` of rows one after the other on
    all cores before it was loaded: the median, the least and the greatest. `ours` is this server's rate just
    before over its rate: the same three, as of `p99_ms`.
    """

    model: str
    connections: int
    server: str
    setting: str
    per_second: float
    least: float
    greatest: float
    p99_ms: tuple[float, float, float]
    failed: int
    start_seconds: float
    rss_mb: float
    of_limit: float
    of_alone: tuple[float, float, float]
    ours: tuple[float, float, float]


def summary(run: Run) -> list[Line]:
    """A line for each model, number of connections and server, the fastest first."""
    groups: dict[tuple[str, int, str], dict[str, list[Point]]] = {}
    for point in run.points:
        key = (point.model, point.result.connections, point.server)
        groups.setdefault(key, {}).setdefault(point.setting, []).append(point)
    best = {key: max(settings.values(), key=_median_rate) for key, settings in groups.items()}
    lines = []
    for (model, connections, server), points in best.items():
        rates = [point.result.per_second for point in points]
        ratios = [p.ours / p.result.per_second for p in points if p.result.per_second] or [0.0]
        limit = statistics.median(run.limits[model][connections])
        lines.append(
            Line(
                model,
                connections,
                server,
                points[0].setting,
                round(statistics.median(rates), 1),
                round(min(rates), 1),
                round(max(rates), 1),
                _spread([point.result.p99 for point in points]),
                sum(point.result.failed for point in points),
                round(statistics.median(point.start_seconds for point in points), 2),
                round(statistics.median(point.rss_mb for point in points), 1),
                round(statistics.median(rates) / limit, 3),
                _spread([point.result.per_second / point.alone for point in points]),
                _spread(ratios),
            )
        )
    order = list(dict.fromkeys(line.model for line in lines))
    return sorted(lines, key=lambda line: (order.index(line.model), line.connections, -line.per_second))


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return round(statistics.median(values), 2), round(min(values), 2), round(max(values), 2)


def _median_rate(points: Sequence[Point]) -> float:
    return statistics.median(point.result.per_second for point in points)


def table(run: Run) -> str:
    """Markdown: a table for each model."""
    parts = []
    for model, lines in _by_model(summary(run)):
        parts += [
            f"### {model}",
            "",
            "| Connections | Server | Requests/s (range) | p99, ms (range) | Of the engine "
            "| Of rows in turns | This server is | Setting |",
            "|---:|---|---:|---:|---:|---:|---:|---|",
        ]
        for connections, most in run.limits[model].items():
            rates = _rates(statistics.median(most), min(most), max(most))
            parts.append(f"| {connections} | *ONNX Runtime alone* | {rates} | | 1.00 | | | |")
            parts += [_row(line) for line in lines if line.connections == connections]
        parts.append("")
    if not run.machine["compiled"]:
        parts.append(f"- {OURS} was measured without its image's compiled modules")
    parts += [f"- {server} was not measured: {reason}" for server, reason in run.unavailable.items()]
    return "\n".join(parts)


def _row(line: Line) -> str:
    times = "" if line.server == OURS else _shown(line.ours, 2, "x")
    failed = f", **{line.failed} failed**" if line.failed else ""
    return (
        f"| {line.connections} | {line.server} "
        f"| {_rates(line.per_second, line.least, line.greatest)}{failed} "
        f"| {_shown(line.p99_ms, 2)} | {line.of_limit:.2f} | {_shown(line.of_alone, 2)} "
        f"| {times} | {line.setting} |"
    )


def _rates(median: float, least: float, greatest: float) -> str:
    return _shown((median, least, greatest), 0 if median >= 100 else 1)


def _shown(spread: tuple[float, float, float], digits: int, unit: str = "") -> str:
    median, least, greatest = (f"{value:,.{digits}f}" for value in spread)
    return f"{median}{unit} ({least} to {greatest})"


def _by_model(lines: Iterable[Line]) -> list[tuple[str, list[Line]]]:
    grouped: dict[str, list[Line]] = {}
    for line in lines:
        grouped.setdefault(line.model, []).append(line)
    return list(grouped.items())


_COLOURS = {OURS: "#1a7f5a", "mosec": "#4c6fae", "Triton": "#8a5fa8", "FastAPI": "#b0803a"}
_BAR, _GAP, _LEFT, _WIDTH = 16, 10, 150, 420


def plot(run: Run) -> str:
    """SVG: requests a second, a bar for each server; a line on it is the range over the rounds."""
    parts: list[str] = []
    y = 10
    for model, lines in _by_model(summary(run)):
        for connections in sorted({line.connections for line in lines}):
            group = [line for line in lines if line.connections == connections]
            plural = "" if connections == 1 else "s"
            parts.append(_text(8, y + 12, f"{model}, {connections} connection{plural}", "bold"))
            y += 20
            scale = _WIDTH / max(line.greatest for line in group)
            for line in group:
                middle, colour = y + _BAR / 2, _COLOURS.get(line.server, "#888")
                parts.append(_text(8, y + 12, line.server))
                parts.append(
                    f'<rect x="{_LEFT}" y="{y}" width="{line.per_second * scale:.1f}" height="{_BAR - 3}" '
                    f'fill="{colour}"/>'
                )
                parts.append(
                    f'<line x1="{_LEFT + line.least * scale:.1f}" x2="{_LEFT + line.greatest * scale:.1f}" '
                    f'y1="{middle - 1.5}" y2="{middle - 1.5}" stroke="#222"/>'
                )
                parts.append(_text(_LEFT + _WIDTH + 10, y + 12, f"{line.per_second:,.0f}/s"))
                y += _BAR
            y += _GAP
    width = _LEFT + _WIDTH + 110
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
        f'font-family="sans-serif" font-size="12"><rect width="{width}" height="{y}" fill="white"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="#222">{escape(text)}</text>'
