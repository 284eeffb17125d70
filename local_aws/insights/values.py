"""Values: absent (None), numbers, texts and points in time; how they compare, sort and look in an answer.

A text that is a number counts as one, since most logs write numbers as texts. Truth values are 1 and 0.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


class Timestamp(int):
    """Milliseconds since the epoch; shown as a date."""


Value = str | int | float | None

UNITS = {
    unit + plural: milliseconds
    for names, milliseconds in (
        (("millisecond", "msec"), 1),
        (("second", "sec"), 1000),
        (("minute", "min"), 60_000),
        (("hour", "hr"), 3_600_000),
        (("day",), 86_400_000),
        (("week",), 7 * 86_400_000),
    )
    for unit in names
    for plural in ("", "s")
} | {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
"""Units of time in milliseconds. Months and longer, which differ in length, are not understood here."""

LONGEST_INTEGER = 30
"""Digits of a text that is still taken for an exact integer."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(value: Value) -> int | float | None:
    """The value as a number, or None if it is not one."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        value = float(text) if re.search(r"[.eE]", text) or len(text) > LONGEST_INTEGER else int(text)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Value) -> str:
    """The value as an answer shows it: numbers with up to four decimals, times in UTC, to the millisecond."""
    if isinstance(value, Timestamp):
        try:
            moment = datetime.fromtimestamp(value // 1000, UTC)
        except (OverflowError, OSError, ValueError):
            return str(int(value))
        return f"{moment:%Y-%m-%d %H:%M:%S}.{value % 1000:03d}"
    if isinstance(value, float):
        # The addition makes a negative zero a zero.
        return f"{round(value, 4) + 0.0:.4f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def truth(value: Value) -> bool:
    """Whether a condition holds."""
    return value not in (None, 0, "", "0")


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(how: str, left: Value, right: Value) -> int | None:
    """1, 0, or None where a side is absent: numbers by size, anything else by its text."""
    if left is None or right is None:
        return None
    numbers = number(left), number(right)
    return int(COMPARISONS[how](*((text(left), text(right)) if None in numbers else numbers)))


SortKey = tuple[int, int | float, tuple[tuple[int, int, str], ...]]


def sort_key(value: Value) -> SortKey:
    """Natural order as documented: the absent, texts, then numbers.

    Texts go by chunks of digits and of anything else; digits by how many there are, then by what they are.
    """
    if value is None:
        return (0, 0, ())
    as_number = number(value)
    if as_number is not None:
        return (2, as_number, ())
    chunks = re.findall(r"[0-9]+|[^0-9]", str(value))
    # A digit meets another sign by its own code: `0#` sorts before `@`.
    return (1, 0, tuple(_chunk(chunk) for chunk in chunks))


def _chunk(chunk: str) -> tuple[int, int, str]:
    digits = chunk[0] in "0123456789"
    return (ord("0") if digits else ord(chunk), len(chunk) if digits else 0, chunk)
