"""Draws the dashboards of the environment `local` as docs/images/dashboard-*.svg.

    make up && .venv/bin/python tests/docs/render_dashboards.py --minutes 12

sends a mixture of good and bad requests for that long, reads the dashboards that the stacks made, asks the
embedded CloudWatch for every metric, alarm and log query on them, and draws the answers on CloudWatch's grid.
What is drawn is the embedded AWS's: latencies are this machine's, and there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import httpx

from catalog.loader import load_platform
from catalog.names import Names
from inferctl.environment import Deployed, find
from local_aws.expressions import Expression

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "local"
CELL_WIDTH, CELL_HEIGHT, GAP = 50, 44, 4  # pixels of CloudWatch's grid, 24 cells wide
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf")
DAY = 86_400  # seconds: the largest period, in which what is drawn lies whole unless midnight does too
WARM_UP = 0.5  # minutes of requests that are not drawn, in which functions start
FONT = "font-family='Helvetica, Arial, sans-serif'"

Points = dict[int, float]  # second since the epoch -> value


# Load


def send_load(deployed: Deployed, minutes: float) -> None:
    """A few clients, most of them well-behaved, until the time is up."""
    samples = {
        model.name: (ROOT / "models" / model.name / "sample.json").read_bytes()
        for model in load_platform(ROOT, ENVIRONMENT).models
    }
    tokens = deployed.tokens(None)
    end = time.monotonic() + 60 * minutes

    def client(seed: int) -> None:
        luck = random.Random(seed)  # noqa: S311 (it draws requests, not secrets)
        with httpx.Client(verify=deployed.verify, timeout=60) as http:
            while time.monotonic() < end:
                model, sample = luck.choice(list(samples.items()))
                kind = luck.random()
                headers = {"Authorization": f"Bearer {tokens()}", "Content-Type": "application/json"}
                if kind < 0.03:
                    headers.pop("Authorization")
                body = b'{"inputs": []}' if 0.03 <= kind < 0.08 else sample
                http.post(f"{deployed.api_url}/v2/models/{model}/infer", content=body, headers=headers)
                # Slow waves, as the hours of a day have.
                time.sleep(0.15 + 0.6 * (1 + math.sin(time.monotonic() / 60)) * luck.random())

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


# Data


@dataclass
class Series:
    label: str
    points: Points
    color: str | None = None
    right: bool = False


@dataclass
class CloudWatch:
    """The embedded CloudWatch over the time that is drawn."""

    deployed: Deployed
    start: datetime
    end: datetime
    _known: list[dict[str, Any]] = field(default_factory=list)

    def series(self, properties: Mapping[str, Any], *, whole: bool = False) -> list[Series]:
        """Every visible series of a widget. `whole`: one point for the whole time."""
        found: dict[str, Points] = {}
        shown: list[Series] = []
        waiting: list[tuple[str, dict[str, Any]]] = []
        default = int(properties.get("period", 60))
        for number, entry in enumerate(properties["metrics"]):
            options = entry[-1] if isinstance(entry[-1], dict) else {}
            name = options.get("id", f"m{number}")
            if "expression" in options:
                waiting.append((name, options))
                continue
            parts = entry[:-1] if options else entry
            dimensions = dict(zip(parts[2::2], parts[3::2], strict=True))
            period = DAY if whole else int(options.get("period", default))
            stat = options.get("stat", properties.get("stat", "Average"))
            found[name] = self.metric(parts[0], parts[1], dimensions, stat, period)
            if options.get("visible", True):
                shown.append(_series(options, parts[1], found[name]))
        for name, options in waiting:
            period = DAY if whole else int(options.get("period", default))
            for label, points in self.expression(
                options["expression"], options.get("label", name), period, found
            ):
                found[name] = points
                if options.get("visible", True):
                    shown.append(_series(options, label, points))
        return shown

    def metric(
        self, namespace: str, name: str, dimensions: Mapping[str, str], stat: str, period: int
    ) -> Points:
        metric = {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        }
        query = {"Id": "q", "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}}
        answer = self.deployed.aws.client("cloudwatch").get_metric_data(
            MetricDataQueries=[query], StartTime=self.start, EndTime=self.end
        )["MetricDataResults"][0]
        moments = (int(moment.timestamp()) for moment in answer["Timestamps"])
        return dict(sorted(zip(moments, answer["Values"], strict=True)))

    def expression(
        self, text: str, label: str, period: int, known: Mapping[str, Points]
    ) -> Iterator[tuple[str, Points]]:
        searched = re.search(r"SEARCH\('(.*?)', '(\w+)', \d+\)", text)
        if searched is None:
            yield label, _evaluate(text, known)
            return
        results = list(self.search(searched[1], searched[2], period))
        if text.startswith("SEARCH"):
            for dimensions, points in results:
                named = re.fullmatch(r"\$\{PROP\('Dim\.(\w+)'\)\}", label)
                yield dimensions[named[1]] if named else label, points
            return
        total: Points = {}
        for _, points in results:
            for moment, value in points.items():
                total[moment] = total.get(moment, 0) + value
        rest = text.replace(f"SUM({searched[0]})", "total")
        yield label, _evaluate(rest, {"total": total})

    def search(self, condition: str, stat: str, period: int) -> Iterator[tuple[dict[str, str], Points]]:
        schema, _, terms = condition.partition("}")
        namespace, *names = schema.lstrip("{").split(",")
        wanted = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', terms)
        if not self._known:
            pages = self.deployed.aws.client("cloudwatch").get_paginator("list_metrics").paginate()
            self._known = [metric for page in pages for metric in page["Metrics"]]
        for metric in self._known:
            dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
            about = {**dimensions, "MetricName": metric["MetricName"]}
            if (
                metric["Namespace"] == namespace
                and set(dimensions) == set(names)
                and all(
                    about.get(key) == exact if exact else part in about.get(key, "")
                    for key, exact, part in wanted
                )
            ):
                yield dimensions, self.metric(namespace, metric["MetricName"], dimensions, stat, period)

    def alarms(self, arns: Sequence[str]) -> list[tuple[str, str]]:
        """Name and state of each."""
        names = [arn.partition(":alarm:")[2] for arn in arns]
        found: dict[str, str] = {}
        for first in range(0, len(names), 100):
            answer = self.deployed.aws.client("cloudwatch").describe_alarms(
                AlarmNames=names[first : first + 100], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
            )
            for alarm in (*answer["MetricAlarms"], *answer.get("CompositeAlarms", [])):
                found[alarm["AlarmName"]] = alarm["StateValue"]
        return [(name, found.get(name, "absent")) for name in names]

    def log_rows(self, query: str) -> list[dict[str, str]]:
        logs = self.deployed.aws.client("logs")
        groups = re.findall(r"SOURCE '([^']+)'", query)
        text = re.sub(r"SOURCE '[^']+' \| ", "", query)
        started = logs.start_query(
            logGroupNames=groups,
            startTime=int(self.start.timestamp()),
            endTime=int(self.end.timestamp()),
            queryString=text,
        )
        results = logs.get_query_results(queryId=started["queryId"])["results"]
        return [{cell["field"]: cell["value"] for cell in row if cell["field"] != "@ptr"} for row in results]


def _series(options: Mapping[str, Any], label: str, points: Points) -> Series:
    right = options.get("yAxis") == "right"
    given = options.get("label", label)
    return Series(label if "${" in given else given, points, options.get("color"), right)


def _evaluate(text: str, known: Mapping[str, Points]) -> Points:
    expression = Expression(text, list(known))
    moments = sorted({moment for points in known.values() for moment in points})
    values = {
        moment: expression({name: points.get(moment) for name, points in known.items()}) for moment in moments
    }
    return {moment: value for moment, value in values.items() if value is not None}


# Drawing


def draw(body: Mapping[str, Any], cloudwatch: CloudWatch, note: str) -> str:
    """The SVG of a dashboard."""
    rows = max(widget["y"] + widget["height"] for widget in body["widgets"])
    width, height = 24 * CELL_WIDTH, rows * CELL_HEIGHT + 28
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}' {FONT} font-size='11'>",
        f"<rect width='{width}' height='{height}' fill='#f2f3f3'/>",
    ]
    for widget in body["widgets"]:
        x, y = widget["x"] * CELL_WIDTH + GAP, widget["y"] * CELL_HEIGHT + GAP
        w, h = widget["width"] * CELL_WIDTH - 2 * GAP, widget["height"] * CELL_HEIGHT - 2 * GAP
        parts.append(f"<svg x='{x}' y='{y}' width='{w}' height='{h}'>")
        parts.append(f"<rect x='.5' y='.5' width='{w - 1}' height='{h - 1}' fill='white' stroke='#d5dbdb'/>")
        parts += _widget(widget, cloudwatch, w, h)
        parts.append("</svg>")
    parts.append(_words(8, height - 10, note, color="#687078"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _widget(widget: Mapping[str, Any], cloudwatch: CloudWatch, w: int, h: int) -> Iterator[str]:
    properties = widget["properties"]
    if widget["type"] == "text":
        yield from _text(properties["markdown"], w)
        return
    yield _words(10, 19, properties.get("title", ""), size=12.5, bold=True)
    if widget["type"] == "alarm":
        yield from _alarms(cloudwatch.alarms(properties["alarms"]), w)
    elif widget["type"] == "log":
        yield from _table(cloudwatch.log_rows(properties["query"]), w, h)
    elif properties.get("view") == "singleValue":
        for series in cloudwatch.series(properties, whole=True):
            value = next(iter(series.points.values()), None)
            yield _words(
                w / 2, h / 2 + 16, "-" if value is None else _number(value), size=28, anchor="middle"
            )
    elif properties.get("view") == "table":
        summary = properties["table"]["summaryColumns"][0]
        summarize = {"SUM": sum, "MAX": max}[summary]
        rows = [
            {"": series.label, summary.lower(): _number(summarize(series.points.values()))}
            for series in cloudwatch.series(properties)
            if series.points
        ]
        yield from _table(rows, w, h)
    else:
        yield from _graph(properties, cloudwatch, w, h)


def _words(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 11,
    bold: bool = False,
    color: str = "#16191f",
    anchor: str = "start",
) -> str:
    weight = " font-weight='bold'" if bold else ""
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{color}' text-anchor='{anchor}'{weight}>"
        f"{escape(text)}</text>"
    )


def _text(markdown: str, w: int) -> Iterator[str]:
    y = 24
    for paragraph in filter(None, markdown.split("\n")):
        heading = paragraph.startswith("#")
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", paragraph.lstrip("# "))
        size = 17 if heading else 12
        words, line = plain.split(), ""
        for word in [*words, ""]:
            if word and len(line) + len(word) < w / size * 1.95:
                line += f"{word} "
                continue
            yield _words(12, y, line, size=size, bold=heading)
            y, line = y + (24 if heading else 18), f"{word} "
        y += 4


def _alarms(states: Sequence[tuple[str, str]], w: int) -> Iterator[str]:
    colors = {"OK": "#1d8102", "ALARM": "#d13212", "INSUFFICIENT_DATA": "#879596", "absent": "#879596"}
    columns = max(1, w // 240)
    box = (w - 20) / columns
    for number, (name, state) in enumerate(states):
        x, y = 10 + number % columns * box, 30 + number // columns * 22
        yield f"<rect x='{x:.1f}' y='{y}' width='{box - 6:.1f}' height='18' rx='2' fill='{colors[state]}'/>"
        short = re.sub(rf"^inference-{ENVIRONMENT}-", "", name)
        most = int(box / 6.2)
        yield _words(x + 6, y + 13, short if len(short) <= most else f"…{short[-most:]}", color="white")


def _table(rows: Sequence[Mapping[str, str]], w: int, h: int) -> Iterator[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        yield _words(w / 2, h / 2, "Nothing in this time", color="#687078", anchor="middle")
        return
    lengths = [max(len(name), *(len(row.get(name, "")) for row in rows)) + 2 for name in columns]
    scale = (w - 24) / sum(lengths)
    for line, row in enumerate([dict(zip(columns, columns, strict=True)), *rows][: (h - 34) // 17]):
        x = 12.0
        for name, length in zip(columns, lengths, strict=True):
            most = max(int(length * scale / 5.6) - 1, 4)
            cell = row.get(name, "")
            shown = cell if len(cell) <= most else cell[: most - 1] + "…"
            yield _words(x, 42 + 17 * line, shown, bold=line == 0)
            x += length * scale


def _graph(properties: Mapping[str, Any], cloudwatch: CloudWatch, w: int, h: int) -> Iterator[str]:
    drawn = cloudwatch.series(properties)
    lines = properties.get("annotations", {}).get("horizontal", [])
    stacked = properties.get("stacked", False)
    left, right, top, bottom = 46, (46 if any(s.right for s in drawn) else 14), 32, h - 52
    first, last = cloudwatch.start.timestamp(), cloudwatch.end.timestamp()

    def across(moment: float) -> float:
        # A period may begin before the time that is drawn.
        return left + (max(moment, first) - first) / (last - first) * (w - left - right)

    tops = {}
    for side in (False, True):
        mine = [series for series in drawn if series.right is side]
        highest = (
            _stacked_top(mine)
            if stacked
            else max((max(s.points.values(), default=0) for s in mine), default=0)
        )
        if not side:
            highest = max([highest, *(line["value"] for line in lines)])
            highest = properties.get("yAxis", {}).get("left", {}).get("max", highest)
        tops[side] = _nice(highest)

    def up(value: float, side: bool) -> float:
        return bottom - min(value, tops[side]) / tops[side] * (bottom - top)

    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        yield f"<line x1='{left}' y1='{y:.1f}' x2='{w - right}' y2='{y:.1f}' stroke='#eaeded'/>"
        yield _words(left - 5, y + 4, _number(tops[False] * share), size=10, color="#687078", anchor="end")
        if right > 14:
            yield _words(w - right + 5, y + 4, _number(tops[True] * share), size=10, color="#687078")
    for step in range(4):
        moment = first + (last - first) * step / 3
        at = datetime.fromtimestamp(moment, UTC).strftime("%H:%M")
        yield _words(across(moment), bottom + 14, at, size=10, color="#687078", anchor="middle")
    base: Points = {}
    legend, row = 12.0, h - 26
    for number, series in enumerate(drawn):
        color = series.color or COLORS[number % len(COLORS)]
        points = {moment: value + base.get(moment, 0) for moment, value in series.points.items()}
        path = [f"{across(moment):.1f},{up(value, series.right):.1f}" for moment, value in points.items()]
        if stacked and path:
            floor = [f"{across(m):.1f},{up(base.get(m, 0), series.right):.1f}" for m in reversed(points)]
            yield f"<polygon points='{' '.join([*path, *floor])}' fill='{color}' fill-opacity='.35'/>"
            base |= points
        if len(path) == 1:
            x, y = path[0].split(",")
            yield f"<circle cx='{x}' cy='{y}' r='2.5' fill='{color}'/>"
        yield f"<polyline points='{' '.join(path)}' fill='none' stroke='{color}' stroke-width='1.6'/>"
        yield f"<rect x='{legend:.1f}' y='{row}' width='10' height='10' fill='{color}'/>"
        label = series.label + (" (right)" if series.right else "") + ("" if series.points else ": none")
        if legend > 12 and legend + 20 + 5.4 * len(label) > w:
            legend, row = 12.0, row + 15
        yield _words(legend + 14, row + 9, label)
        legend += 26 + 5.6 * len(label)
    for line in lines:
        y, color = up(line["value"], False), line.get("color", "#d62728")
        ends = f"x1='{left}' y1='{y:.1f}' x2='{w - right}' y2='{y:.1f}'"
        yield f"<line {ends} stroke='{color}' stroke-dasharray='5 3'/>"
        yield _words(
            w - right - 4, y - 4 if y > top + 10 else y + 12, line["label"], color=color, anchor="end"
        )


def _stacked_top(drawn: Sequence[Series]) -> float:
    moments = {moment for series in drawn for moment in series.points}
    return max((sum(s.points.get(moment, 0) for s in drawn) for moment in moments), default=0)


def _nice(value: float) -> float:
    """A round number not below `value`."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)


def _number(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1000 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=12, help="how long to send requests before")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    deployed, names = find(ENVIRONMENT), Names(ENVIRONMENT)
    send_load(deployed, WARM_UP)
    time.sleep(60 - datetime.now(UTC).second)
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    send_load(deployed, arguments.minutes)
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    client = deployed.aws.client("cloudwatch")
    found = client.list_dashboards(DashboardNamePrefix=names.prefix)["DashboardEntries"]
    for entry in found:
        name = entry["DashboardName"]
        body = json.loads(client.get_dashboard(DashboardName=name)["DashboardBody"])
        drawing = draw(
            body,
            CloudWatch(deployed, start, end),
            f"{name}: rendered from the embedded AWS's metrics, alarms and logs; {start:%Y-%m-%d %H:%M} to "
            f"{end:%H:%M} UTC. Latencies are those of the machine that drew it, and it has no GPU.",
        )
        short = name.removeprefix(names.prefix).lstrip("-") or "platform"
        path = arguments.output / f"dashboard-{short}.svg"
        path.write_text(drawing, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
