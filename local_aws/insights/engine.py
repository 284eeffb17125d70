"""Running a query over log events.

Where the documentation is silent: comparing an absent field is false, whatever the operator; a percentile is
the nearest rank, where Logs Insights approximates; groups come in the order in which they are found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from local_aws.insights import language
from local_aws.insights.functions import AGGREGATES, SCALARS
from local_aws.insights.language import (
    Call,
    Command,
    Constant,
    Expression,
    Field,
    In,
    Like,
    Operation,
    Period,
)
from local_aws.insights.values import UNITS, Timestamp, Value, compare, number, sort_key, text, truth

Cells = dict[str, str]  # a row of the answer: column -> text, without the columns that it has no value for


@dataclass(frozen=True)
class Event:
    """A log event. `log` is `<account>:<log group>`; times are in milliseconds since the epoch."""

    timestamp: int
    message: str
    log: str = ""
    stream: str = ""
    ingested: int = 0
    pointer: str = ""

    @cached_property
    def fields(self) -> Mapping[str, Value]:
        """The fields that Logs Insights discovers: of JSON, and of the last line of a Lambda invocation."""
        try:
            found: dict[str, Value] = dict(_discovered(self.message))
        except (ValueError, RecursionError):  # not JSON, or nothing that anybody would nest so deeply
            found = {}
        found |= {
            "@timestamp": Timestamp(self.timestamp),
            "@message": self.message,
            "@log": self.log,
            "@logStream": self.stream,
            "@ingestionTime": Timestamp(self.ingested),
            "@ptr": self.pointer,
        }
        return found


_REPORT = {
    "@requestId": re.compile(r"RequestId: (\S+)"),
    "@duration": re.compile(r"\tDuration: ([\d.]+) ms"),
    "@billedDuration": re.compile(r"\tBilled Duration: ([\d.]+) ms"),
    "@initDuration": re.compile(r"\tInit Duration: ([\d.]+) ms"),
    "@memorySize": re.compile(r"\tMemory Size: (\d+) MB"),
    "@maxMemoryUsed": re.compile(r"\tMax Memory Used: (\d+) MB"),
}
_MEMORY = ("@memorySize", "@maxMemoryUsed")  # which Logs Insights gives in bytes


def _discovered(message: str) -> Iterator[tuple[str, Value]]:
    if message.startswith("{"):
        yield from _flattened("", json.loads(message))
    elif message.startswith(("START RequestId: ", "END RequestId: ", "REPORT RequestId: ")):
        yield "@type", message.partition(" ")[0]
        for name, pattern in _REPORT.items():
            if found := pattern.search(message):
                yield name, int(found[1]) * 1_000_000 if name in _MEMORY else found[1]


def _flattened(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    """The leaves of a JSON document, named by their path: `a.b`, `a.0`."""
    if isinstance(value, Mapping | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            # A key that starts as the system's own fields do gets a second @.
            own = f"@{key}" if not name and str(key).startswith("@") else str(key)
            yield from _flattened(f"{name}.{own}" if name else own, item)
    elif value is not None:
        yield name, int(value) if isinstance(value, bool) else value


@dataclass
class _Row:
    """A record on its way through the commands: what was computed hides what the event has."""

    event: Event | None
    computed: dict[str, Value] = field(default_factory=dict)

    @property
    def time(self) -> int:
        return self.event.timestamp if self.event else 0

    def __getitem__(self, name: str) -> Value:
        if name in self.computed:
            return self.computed[name]
        return self.event.fields.get(name) if self.event else None


@dataclass(frozen=True)
class Result:
    """The rows of the answer, and what it took to find them."""

    rows: list[Cells]
    matched: int
    scanned: int
    bytes_scanned: int


def run(commands: Sequence[Command], events: Iterable[Event], limit: int | None = None) -> Result:
    """The answer of a query. `limit` is StartQuery's own."""
    records = sorted(events, key=lambda event: event.timestamp, reverse=True)
    rows = [_Row(event) for event in records]
    columns: list[str] = []
    matched: int | None = None
    for command in commands:
        match command:
            case language.Fields():
                for row in rows:
                    for column in command.columns:
                        row.computed[column.name] = _value(column.expression, row)
                shown = [column.name for column in command.columns]
                columns = shown if command.only else list(dict.fromkeys([*columns, *shown]))
            case language.Filter():
                rows = [row for row in rows if truth(_value(command.condition, row))]
            case language.Parse():
                for row in rows:
                    row.computed |= _parsed(command, row)
            case language.Stats():
                matched = len(rows) if matched is None else matched
                rows = _grouped(command, rows)
                columns = [column.name for column in (*command.keys, *command.aggregates)]
            case language.Sort():
                # The last key first: sorting is stable.
                for expression, descending in reversed(command.keys):
                    rows.sort(key=lambda row: sort_key(_value(expression, row)), reverse=descending)
            case language.Limit():
                matched = len(rows) if matched is None else matched
                rows = rows[: command.count]
            case language.Dedup():
                rows = _first_of_each(command, rows)
    matched = len(rows) if matched is None else matched
    rows = rows[: limit or language.DEFAULT_LIMIT]
    columns = columns or ["@timestamp", "@message"]
    if not any(isinstance(command, language.Stats) for command in commands):
        columns = [*(column for column in columns if column != "@ptr"), "@ptr"]
    cells = [{column: text(row[column]) for column in columns if row[column] is not None} for row in rows]
    size = sum(len(event.message.encode()) for event in records)
    return Result(cells, matched, len(records), size)


def _parsed(command: language.Parse, row: _Row) -> dict[str, Value]:
    value = _value(command.value, row)
    found = command.pattern.search(text(value)) if value is not None else None
    return {name: found[group] for group, name in command.names if found[group] is not None} if found else {}


def _first_of_each(command: language.Dedup, rows: list[_Row]) -> list[_Row]:
    """The first record of each combination; one that lacks a value is nobody's duplicate."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row in rows:
        values = [_value(key, row) for key in command.keys]
        combination = tuple(text(value) for value in values)
        if None in values or combination not in seen:
            kept.append(row)
            seen.add(combination)
    return kept


def _grouped(command: language.Stats, rows: list[_Row]) -> list[_Row]:
    groups: dict[tuple[tuple[bool, str], ...], tuple[list[Value], list[_Row]]] = {}
    for row in rows:
        values = [_value(key.expression, row) for key in command.keys]
        identity = tuple((value is None, text(value)) for value in values)
        groups.setdefault(identity, (values, []))[1].append(row)
    if not command.keys and not groups:
        groups[()] = ([], [])  # counting nothing is an answer: 0
    made = []
    for values, members in groups.values():
        row = _Row(None, {key.name: value for key, value in zip(command.keys, values, strict=True)})
        for aggregate in command.aggregates:
            row.computed[aggregate.name] = _value(aggregate.expression, row, members)
        made.append(row)
    return made


def _value(expression: Expression, row: _Row, group: list[_Row] | None = None) -> Value:
    """The value of an expression in a record; `group` is what its aggregates are computed from."""
    match expression:
        case Constant():
            return expression.value
        case Period():
            return expression.amount * UNITS[expression.unit]
        case Field():
            return row[expression.name]
        case Call(function=name) if name in AGGREGATES:
            return _aggregated(expression, group or [])
        case Call(function="bin", arguments=(period,)):
            return SCALARS["bin"].apply(row["@timestamp"], _value(period, row))
        case Call(function=name, arguments=arguments):
            function = SCALARS[name]
            values = [_value(argument, row, group) for argument in arguments]
            return None if None in values and not function.sees_absent else function.apply(*values)
        case Operation(operator="not", operands=(inner,)):
            return int(not truth(_value(inner, row, group)))
        case Operation(operator="and", operands=operands):
            return int(all(truth(_value(operand, row, group)) for operand in operands))
        case Operation(operator="or", operands=operands):
            return int(any(truth(_value(operand, row, group)) for operand in operands))
        case Operation(operator=operator, operands=operands):
            values = [_value(operand, row, group) for operand in operands]
            return _computed(operator, values) if operator in _ARITHMETIC else compare(operator, *values)
        case Like(pattern=pattern):
            value = _value(expression.value, row, group)
            if value is None:
                return 0
            within = text(value)
            return int(pattern in within if isinstance(pattern, str) else bool(pattern.search(within)))
        case In():
            value = _value(expression.value, row, group)
            return int(any(compare("=", value, _value(o, row, group)) for o in expression.options))
        case language.Star():
            return 1
    raise AssertionError(expression)


def _aggregated(call: Call, members: list[_Row]) -> Value:
    over, *parameters = call.arguments or (language.Star(),)
    values = [(row.time, value) for row in members if (value := _value(over, row)) is not None]
    constants = [number(_value(parameter, _Row(None))) for parameter in parameters]
    if None in constants:
        return None
    try:
        return AGGREGATES[call.function].apply(values, *constants)
    except ArithmeticError:
        return None


_ARITHMETIC: dict[str, Callable[..., int | float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b=None: -a if b is None else a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": math.fmod,
    "^": lambda a, b: math.pow(a, b),
}


def _computed(operator: str, values: list[Value]) -> Value:
    """The result, or None where a side is no number, or the result is none (a division by zero)."""
    numbers = [number(value) for value in values]
    if None in numbers:
        return None
    try:
        result = _ARITHMETIC[operator](*numbers)
        if not math.isfinite(result):
            return None
    except (ArithmeticError, ValueError):
        return None
    return int(result) if float(result).is_integer() and abs(result) < 2**53 else result
