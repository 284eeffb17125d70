"""The functions of the query language.

docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_aws.insights.values import Timestamp, Value, number, sort_key, text

ANY_NUMBER = 100


@dataclass(frozen=True)
class Scalar:
    """A function of one record's values. An absent argument makes the result absent, unless `sees_absent`."""

    apply: Callable[..., Value]
    arity: tuple[int, int]
    sees_absent: bool = False


@dataclass(frozen=True)
class Aggregate:
    """A function of a group's values: `(time, value)` of every record that has one, in the records' order.

    `parameters`: constants after the value, such as the percentage of `pct`.
    """

    apply: Callable[..., Value]
    arity: tuple[int, int]


def _numeric(function: Callable[..., int | float]) -> Callable[..., Value]:
    """A function of numbers; anything else, and a result that no number is, makes it absent."""

    def apply(*arguments: Value) -> Value:
        numbers = [number(argument) for argument in arguments]
        if None in numbers:
            return None
        try:
            result = function(*numbers)
        except (ArithmeticError, ValueError):
            return None
        return None if isinstance(result, complex) or not math.isfinite(result) else result

    return apply


def _of_text(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda *arguments: function(*(text(argument) for argument in arguments))


def _part(value: Value, start: Value, length: Value = None) -> Value:
    begin, count = number(start), number(length)
    if begin is None:
        return None
    rest = text(value)[max(int(begin), 0) :]
    return rest if count is None else rest[: max(int(count), 0)]


def _floor(moment: Value, milliseconds: int) -> Value:
    """`moment` rounded down to a multiple of a period, counted from the epoch."""
    since = number(moment)
    return None if since is None else Timestamp(int(since) // milliseconds * milliseconds)


def _ceil(moment: Value, milliseconds: int) -> Value:
    since = number(moment)
    return None if since is None else Timestamp(-(-int(since) // milliseconds) * milliseconds)


def _from_millis(value: Value) -> Value:
    since = number(value)
    return None if since is None else Timestamp(int(since))


def _to_millis(value: Value) -> Value:
    return int(value) if isinstance(value, Timestamp) else None


def _coalesce(*values: Value) -> Value:
    return next((value for value in values if value is not None), None)


def _is_address(version: int | None) -> Callable[[Value], Value]:
    def check(value: Value) -> Value:
        try:
            address = ipaddress.ip_address(text(value))
        except ValueError:
            return 0
        return int(version in (None, address.version))

    return check


def _in_subnet(version: int | None) -> Callable[[Value, Value], Value]:
    def check(value: Value, subnet: Value) -> Value:
        try:
            address, network = ipaddress.ip_address(text(value)), ipaddress.ip_network(text(subnet), False)
        except ValueError:
            return 0
        return int(address in network and version in (None, address.version))

    return check


_ANY = (1, ANY_NUMBER)

SCALARS: dict[str, Scalar] = {
    # Numbers
    "abs": Scalar(_numeric(abs), (1, 1)),
    "ceil": Scalar(_numeric(math.ceil), (1, 1)),
    "floor": Scalar(_numeric(math.floor), (1, 1)),
    "greatest": Scalar(_numeric(max), (2, ANY_NUMBER)),
    "least": Scalar(_numeric(min), (2, ANY_NUMBER)),
    "log": Scalar(_numeric(math.log), (1, 1)),
    "sqrt": Scalar(_numeric(math.sqrt), (1, 1)),
    # Times
    "bin": Scalar(_floor, (1, 1)),
    "datefloor": Scalar(_floor, (2, 2)),
    "dateceil": Scalar(_ceil, (2, 2)),
    "fromMillis": Scalar(_from_millis, (1, 1)),
    "toMillis": Scalar(_to_millis, (1, 1)),
    "now": Scalar(lambda: int(time.time()), (0, 0)),
    # Presence
    "ispresent": Scalar(lambda value: int(value is not None), (1, 1), sees_absent=True),
    "isempty": Scalar(lambda value: int(value in (None, "")), (1, 1), sees_absent=True),
    "isblank": Scalar(lambda value: int(value is None or not text(value).strip()), (1, 1), sees_absent=True),
    "coalesce": Scalar(_coalesce, _ANY, sees_absent=True),
    # Texts
    "concat": Scalar(_of_text(lambda *texts: "".join(texts)), _ANY, sees_absent=True),
    "strlen": Scalar(_of_text(len), (1, 1)),
    "trim": Scalar(_of_text(str.strip), (1, 2)),
    "ltrim": Scalar(_of_text(str.lstrip), (1, 2)),
    "rtrim": Scalar(_of_text(str.rstrip), (1, 2)),
    "toupper": Scalar(_of_text(str.upper), (1, 1)),
    "tolower": Scalar(_of_text(str.lower), (1, 1)),
    "substr": Scalar(_part, (2, 3)),
    "replace": Scalar(_of_text(str.replace), (3, 3)),
    "strcontains": Scalar(_of_text(lambda whole, part: int(part in whole)), (2, 2)),
    # Addresses
    "isValidIp": Scalar(_is_address(None), (1, 1)),
    "isValidIpv4": Scalar(_is_address(4), (1, 1)),
    "isValidIpv6": Scalar(_is_address(6), (1, 1)),
    "isIpInSubnet": Scalar(_in_subnet(None), (2, 2)),
    "isIpv4InSubnet": Scalar(_in_subnet(4), (2, 2)),
    "isIpv6InSubnet": Scalar(_in_subnet(6), (2, 2)),
}

Timed = Sequence[tuple[int, Value]]


def _numbers(values: Timed) -> list[int | float]:
    return [found for _, value in values if (found := number(value)) is not None]


def _average(values: Timed) -> Value:
    numbers = _numbers(values)
    return sum(numbers) / len(numbers) if numbers else None


def _extreme(pick: Callable[..., tuple[int, Value]]) -> Callable[[Timed], Value]:
    return lambda values: pick(values, key=lambda timed: sort_key(timed[1]))[1] if values else None


def _when(pick: Callable[..., tuple[int, Value]]) -> Callable[[Timed], Value]:
    return lambda values: pick(values, key=lambda timed: timed[0])[1] if values else None


def _percentile(values: Timed, percent: float) -> Value:
    """The nearest rank; Logs Insights itself approximates."""
    numbers = sorted(_numbers(values))
    rank = math.ceil(percent / 100 * len(numbers))
    return numbers[max(rank, 1) - 1] if numbers else None


def _deviation(values: Timed) -> Value:
    numbers = _numbers(values)
    if not numbers:
        return None
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((each - mean) ** 2 for each in numbers) / len(numbers))


AGGREGATES: dict[str, Aggregate] = {
    "count": Aggregate(len, (0, 1)),
    "count_distinct": Aggregate(lambda values: len({text(value) for _, value in values}), (1, 1)),
    "sum": Aggregate(lambda values: sum(_numbers(values)), (1, 1)),
    "avg": Aggregate(_average, (1, 1)),
    "min": Aggregate(_extreme(min), (1, 1)),
    "max": Aggregate(_extreme(max), (1, 1)),
    "pct": Aggregate(_percentile, (2, 2)),
    "stddev": Aggregate(_deviation, (1, 1)),
    "earliest": Aggregate(_when(min), (1, 1)),
    "latest": Aggregate(_when(max), (1, 1)),
    "sortsFirst": Aggregate(_extreme(min), (1, 1)),
    "sortsLast": Aggregate(_extreme(max), (1, 1)),
}
