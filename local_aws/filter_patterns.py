"""CloudWatch Logs' filter patterns: which log lines a metric filter, a subscription or a search is about.

Terms (`ERROR`, `"two words"`, `-excluded`, `?either ?or`, `%regular expression%`) and conditions on the
fields of JSON lines (`{ ($.a = "x*") && ($.b[0].c > 5) }`). Patterns of space-delimited fields are refused.
docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from typing import Any

Matcher = Callable[[str], bool]
_Condition = Callable[[Any], bool]

_TOKEN = re.compile(
    r"""\s*(?: (?P<field>\$(?:\.[\w-]+|\[\d+\]|\["[^"]+"\])+) | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<regex>%[^%]+%)
    | (?P<sign>&&|\|\||\(|\)|!=|<=|>=|=|<|>) | (?P<word>[^\s()=!<>&|{}"]+) )""",
    re.VERBOSE,
)
_STEP = re.compile(r"""\.([\w-]+)|\[(\d+)\]|\["([^"]+)"\]""")
_TERM = re.compile(
    r"""\s*(?P<sign>[-?]?)(?:"(?P<phrase>(?:[^"\\]|\\.)*)"|%(?P<regex>[^%]+)%|(?P<word>[^\s"]+))"""
)
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_KEYWORDS = {"TRUE": True, "FALSE": False, "NULL": None}
_MISSING = object()


class InvalidPattern(ValueError):
    """The pattern is malformed, or uses what is not understood here; the message says what."""


@cache
def matcher(pattern: str) -> Matcher:
    """Whether a log line matches `pattern`. Raises InvalidPattern."""
    stripped = pattern.strip()
    if stripped.startswith("["):
        raise InvalidPattern(f"Patterns of space-delimited fields are not understood here: {pattern!r}")
    return _of_fields(stripped) if stripped.startswith("{") else _of_terms(stripped)


def value_of(line: str, selector: str) -> Any:
    """The value of a field of a JSON line, such as `$.latency`; None if there is none."""
    value = _at(_record(line), _path(selector))
    return None if value is _MISSING else value


def _of_terms(pattern: str) -> Matcher:
    """Case-sensitive, as AWS's: all terms, none of the excluded, one of the optional."""
    terms: dict[str, list[Matcher]] = {"": [], "-": [], "?": []}
    position = 0
    while position < len(pattern):
        found = _TERM.match(pattern, position)
        if not found:
            raise InvalidPattern(f"A quote does not end: {pattern!r}")
        terms[found["sign"]].append(_term(found))
        position = found.end()
    wanted, excluded, optional = terms.values()

    def matches(line: str) -> bool:
        return (
            all(term(line) for term in wanted)
            and not any(term(line) for term in excluded)
            and (not optional or any(term(line) for term in optional))
        )

    return matches


def _term(found: re.Match[str]) -> Matcher:
    if found["regex"]:
        expression = re.compile(found["regex"])
        return lambda line: expression.search(line) is not None
    text = found["word"] or re.sub(r"\\(.)", r"\1", found["phrase"])
    return lambda line: text in line


def _of_fields(pattern: str) -> Matcher:
    if not pattern.endswith("}"):
        raise InvalidPattern(f"A brace does not end: {pattern!r}")
    condition = _Parser(pattern[1:-1]).whole()

    def matches(line: str) -> bool:
        record = _record(line)
        return record is not _MISSING and condition(record)

    return matches


@lru_cache(maxsize=1)
def _record(line: str) -> Any:
    """What a JSON line holds. The last one is remembered: each filter of a group asks for it."""
    try:
        return json.loads(line)
    except ValueError:
        return _MISSING


class _Parser:
    """Reads `a && b || c` with the usual precedence."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())

    def _split(self) -> Iterator[tuple[str, str]]:
        position, text = 0, self._text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if not found or not found.lastgroup:
                raise InvalidPattern(f"Not understood: {text[position:]!r}")
            yield found.lastgroup, found[found.lastgroup]
            position = found.end()

    def whole(self) -> _Condition:
        condition = self._either()
        if self._tokens:
            raise InvalidPattern(f"Not expected: {self._tokens[0][1]!r}")
        return condition

    def _either(self) -> _Condition:
        conditions = [self._all()]
        while self._skip("||"):
            conditions.append(self._all())
        return lambda record: any(condition(record) for condition in conditions)

    def _all(self) -> _Condition:
        conditions = [self._one()]
        while self._skip("&&"):
            conditions.append(self._one())
        return lambda record: all(condition(record) for condition in conditions)

    def _one(self) -> _Condition:
        if self._skip("("):
            condition = self._either()
            self._expect(")")
            return condition
        path = _path(self._take("field"))
        if self._skip("NOT"):
            self._expect("EXISTS")
            return lambda record: _at(record, path) is _MISSING
        if self._skip("EXISTS"):
            return lambda record: _at(record, path) is not _MISSING
        if self._skip("IS"):
            wanted = _KEYWORDS[self._take("word", *_KEYWORDS)]
            return lambda record: _at(record, path) is wanted
        sign = self._take("sign", "=", "!=", *_ORDER)
        compare = _comparison(sign, *self._next())
        # A line that lacks the field is not about it: no comparison matches.
        return lambda record: (value := _at(record, path)) is not _MISSING and compare(value)

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise InvalidPattern(f"It ends too early: {self._text!r}")
        return self._tokens.pop(0)

    def _skip(self, text: str) -> bool:
        if self._tokens and self._tokens[0][1] == text:
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            raise InvalidPattern(f"{text!r} is missing: {self._text!r}")

    def _take(self, kind: str, *allowed: str) -> str:
        found, text = self._next()
        if found != kind or (allowed and text not in allowed):
            raise InvalidPattern(f"Not expected: {text!r}")
        return text


def _comparison(sign: str, kind: str, text: str) -> _Condition:
    if sign in _ORDER:
        number = _number(text) if kind == "word" else None
        if number is None:
            raise InvalidPattern(f"{sign} compares numbers, not {text!r}")
        order = _ORDER[sign]
        return lambda value: _is_number(value) and order(value, number)
    equal = _equality(kind, text)
    return equal if sign == "=" else lambda value: not equal(value)


def _equality(kind: str, text: str) -> _Condition:
    """To be equal to a text with `*` for anything, to a number, or to match a regular expression."""
    if kind == "regex":
        expression = re.compile(text.strip("%"))
        return lambda value: expression.search(str(value)) is not None
    if kind not in ("string", "word"):
        raise InvalidPattern(f"Not a value: {text!r}")
    plain = json.loads(text) if kind == "string" else text
    number = _number(plain) if kind == "word" else None
    glob = re.sub(r"([][?])", r"[\1]", plain)
    return lambda value: (_is_number(value) and value == number) or fnmatchcase(str(value), glob)


def _path(selector: str) -> list[str | int]:
    return [int(index) if index else name or quoted for name, index, quoted in _STEP.findall(selector)]


def _at(value: Any, path: list[str | int]) -> Any:
    for step in path:
        is_there = step < len(value) if isinstance(value, list) and isinstance(step, int) else False
        if not is_there and not (isinstance(value, dict) and step in value):
            return _MISSING
        value = value[step]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
