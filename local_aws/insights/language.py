"""The query language: text to commands.

Commands: fields, display, filter, parse, stats, sort, limit, dedup. Any other is refused by name, and so is a
function that `functions` does not have: an answer that leaves a part of the query out would be a wrong one.
docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import regex

from local_aws.insights.functions import AGGREGATES, SCALARS
from local_aws.insights.values import UNITS

T = TypeVar("T")

DEFAULT_LIMIT = 10_000
DEEPEST = 50  # levels of parentheses
MOST_OPERATORS = 200

_NOT_HERE = ("anomaly", "diff", "filterIndex", "join", "lookup", "pattern", "SOURCE", "unmask", "unnest")
"""Commands that Logs Insights has and this interpreter does not."""


class MalformedQuery(ValueError):
    """The query cannot be run; `start` and `end` are the characters that are to blame."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start, self.end = start, end


# Expressions


@dataclass(frozen=True)
class Constant:
    value: str | int | float


@dataclass(frozen=True)
class Period:
    """A length of time, such as `5m`."""

    amount: int
    unit: str


@dataclass(frozen=True)
class Field:
    name: str


@dataclass(frozen=True)
class Star:
    """The argument of `count(*)`."""


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Operation:
    """`operator` between two operands, or before one: `-` and `not`."""

    operator: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Like:
    """Whether a value contains a text, or matches a regular expression somewhere."""

    value: Expression
    pattern: str | regex.Pattern[str]


@dataclass(frozen=True)
class In:
    value: Expression
    options: tuple[Expression, ...]


Expression = Constant | Period | Field | Star | Call | Operation | Like | In


@dataclass(frozen=True)
class Named:
    """An expression and the name of its column: its alias, or its own text."""

    expression: Expression
    name: str


# Commands


@dataclass(frozen=True)
class Fields:
    """Columns to show. `only`: the command is `display`, and what was to be shown before is not."""

    columns: tuple[Named, ...]
    only: bool


@dataclass(frozen=True)
class Filter:
    condition: Expression


@dataclass(frozen=True)
class Parse:
    """Fields taken out of a value: the groups of `pattern`, by number, become the fields `names`."""

    value: Expression
    pattern: regex.Pattern[str]
    names: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Stats:
    aggregates: tuple[Named, ...]
    keys: tuple[Named, ...]


@dataclass(frozen=True)
class Sort:
    keys: tuple[tuple[Expression, bool], ...]  # an expression, and whether it descends


@dataclass(frozen=True)
class Limit:
    count: int


@dataclass(frozen=True)
class Dedup:
    keys: tuple[Expression, ...]


Command = Fields | Filter | Parse | Stats | Sort | Limit | Dedup


def parse(text: str) -> tuple[Command, ...]:
    """The commands of a query. Raises MalformedQuery."""
    return _Parser(text).query()


def _inside(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that an expression is made of."""
    match expression:
        case Call():
            return expression.arguments
        case Operation():
            return expression.operands
        case Like():
            return (expression.value,)
        case In():
            return (expression.value, *expression.options)
        case _:
            return ()


def _outside_aggregates(expression: Expression) -> Iterator[str]:
    """The fields that an expression uses as they are, not through an aggregate."""
    if isinstance(expression, Field):
        yield expression.name
    if not (isinstance(expression, Call) and expression.function in AGGREGATES):
        for part in _inside(expression):
            yield from _outside_aggregates(part)


def _depends_on_time(command: Command) -> bool:
    def found(expression: Expression) -> bool:
        timed = isinstance(expression, Call) and expression.function in ("earliest", "latest")
        return timed or any(map(found, _inside(expression)))

    return isinstance(command, Stats) and any(found(each.expression) for each in command.aggregates)


_SPACE = re.compile(r"(?:\s+|#[^\n]*)*")
_WORD = re.compile(r"[A-Za-z]+")
_FIELD = re.compile(r"@{0,2}[A-Za-z_][\w@]*(?:\.\w+)*", re.ASCII)
_QUOTED_FIELD = re.compile(r"`([^`]+)`")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])", re.ASCII)
_PERIOD = re.compile(r"(\d+)\s*([A-Za-z]+)", re.ASCII)
_TEXT = re.compile(r'"((?:\\.|[^"\\])*)"|\'((?:\\.|[^\'\\])*)\'', re.DOTALL)
_REGEX = re.compile(r"/((?:\\.|[^/\\\n])+)/")
_FUNCTION = re.compile(r"([A-Za-z]\w*)\s*\(", re.ASCII)
_PERIOD_AT = {"bin": 0, "datefloor": 1, "dateceil": 1}
"""Functions that take a period, and as which argument."""

_RESERVED = {"and", "or", "not", "in", "like", "as", "by", "asc", "desc"}


class _Parser:
    """Recursive descent over the text itself: what `/` means depends on where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._operators = 0
        self._aggregating = False

    def query(self) -> tuple[Command, ...]:
        commands = [self._command()]
        while self._symbol("|"):
            commands.append(self._command())
        if not self._ended():
            self._unexpected()
        self._check_order(commands)
        return tuple(commands)

    def _command(self) -> Command:
        self._skip()
        start = self._at
        word = self._match(_WORD)
        readers: dict[str, Callable[[], Command]] = {
            "fields": lambda: Fields(self._listed(self._column), only=False),
            "display": lambda: Fields(self._listed(self._column), only=True),
            "filter": lambda: Filter(self._expression()),
            "parse": self._parse,
            "stats": self._stats,
            "sort": lambda: Sort(self._listed(self._sort_key)),
            "limit": self._limit,
            "dedup": lambda: Dedup(self._listed(self._expression)),
        }
        if word is None:
            self._unexpected()
        reader = readers.get(word[0].lower())
        if reader is None:
            known = next((each for each in _NOT_HERE if each.lower() == word[0].lower()), None)
            if known:
                raise MalformedQuery(f"The embedded AWS does not run the command {known}.", start, self._at)
            raise MalformedQuery(f"{word[0]} is not a command", start, self._at)
        return reader()

    def _check_order(self, commands: list[Command]) -> None:
        """The rules of the documentation on what may follow what."""
        stats = [index for index, command in enumerate(commands) if isinstance(command, Stats)]
        if len(stats) > 2:
            self._refuse("A query can have at most two stats commands")
        if len(stats) == 2 and any(isinstance(c, Sort | Limit) for c in commands[: stats[1]]):
            self._refuse("sort and limit must come after the second stats command")
        for index, command in enumerate(commands):
            if stats and index == stats[-1] and len(stats) == 2 and _depends_on_time(command):
                self._refuse("earliest and latest have no times to go by in a second stats command")
            if isinstance(command, Dedup) and not all(isinstance(c, Limit) for c in commands[index + 1 :]):
                self._refuse("Only limit can follow dedup")

    def _column(self) -> Named:
        self._skip()
        start = self._at
        expression = self._expression()
        return Named(expression, self._alias() or self._text[start : self._at].strip())

    def _alias(self) -> str | None:
        return self._name() if self._keyword("as") else None

    def _stats(self) -> Stats:
        start = self._at
        self._aggregating = True
        aggregates = self._listed(self._column)
        self._aggregating = False
        keys = self._listed(self._column) if self._keyword("by") else ()
        known = {key.name for key in keys}
        for aggregate in aggregates:
            for field in _outside_aggregates(aggregate.expression):
                if field not in known:
                    raise MalformedQuery(
                        f"{field} is neither aggregated, nor grouped by, nor the name of an aggregate "
                        "before it",
                        start,
                        self._at,
                    )
            known.add(aggregate.name)
        return Stats(aggregates, keys)

    def _sort_key(self) -> tuple[Expression, bool]:
        expression = self._expression()
        descending = self._keyword("desc")
        if not descending:
            self._keyword("asc")
        return expression, descending

    def _limit(self) -> Limit:
        self._skip()
        start = self._at
        number = self._match(_NUMBER)
        if number is None:
            self._unexpected()
        if not number[0].isdigit() or not 1 <= int(number[0]) <= DEFAULT_LIMIT:
            raise MalformedQuery(f"limit must be a whole number up to {DEFAULT_LIMIT}", start, self._at)
        return Limit(int(number[0]))

    def _parse(self) -> Parse:
        value = self._field()
        self._skip()
        start = self._at
        if self._text.startswith("/", self._at):
            pattern = self._regex()
            if not pattern.groupindex:
                raise MalformedQuery("The regular expression names no group", start, self._at)
            return Parse(value, pattern, tuple((group, name) for name, group in pattern.groupindex.items()))
        glob = self._string()
        if glob is None:
            self._unexpected()
        if not self._keyword("as"):
            self._unexpected()
        names = self._listed(self._name)
        if glob.count("*") != len(names):
            raise MalformedQuery(
                f"The pattern has {glob.count('*')} wildcards for {len(names)} names", start, self._at
            )
        # A wildcard takes as little as it can; the last one, at the pattern's end, all that is left.
        parts = [regex.escape(part, literal_spaces=True) for part in glob.split("*")]
        source = parts[0] + "".join(f"(.*?){part}" for part in parts[1:]) + ("$" if glob[-1:] == "*" else "")
        return Parse(value, regex.compile(source, regex.DOTALL), tuple(enumerate(names, 1)))

    # Expressions, from the weakest operator to the strongest

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(f"An expression can be nested at most {DEEPEST} levels deep")
        left = self._conjunction()
        while self._keyword("or"):
            left = self._operation("or", left, self._conjunction())
        self._depth -= 1
        return left

    def _conjunction(self) -> Expression:
        left = self._negation()
        while self._keyword("and"):
            left = self._operation("and", left, self._negation())
        return left

    def _negation(self) -> Expression:
        negated = False
        while self._keyword("not"):
            negated = not negated
        inner = self._comparison()
        return Operation("not", (inner,)) if negated else inner

    def _comparison(self) -> Expression:
        left = self._sum()
        if self._symbol("=~"):
            return Like(left, self._regex())
        for operator in ("!=", "<=", ">=", "=", "<", ">"):
            if self._symbol(operator):
                return Operation(operator, (left, self._sum()))
        before = self._at
        negated = self._keyword("not")
        found: Expression | None = None
        if self._keyword("like"):
            found = self._like(left)
        elif self._keyword("in"):
            found = self._in(left)
        if found is None:
            self._at = before
            return left
        return Operation("not", (found,)) if negated else found

    def _like(self, left: Expression) -> Like:
        self._skip()
        if self._text.startswith("/", self._at):
            return Like(left, self._regex())
        text = self._string()
        if text is None:
            self._unexpected()
        return Like(left, text)

    def _in(self, left: Expression) -> In:
        if not self._symbol("["):
            self._unexpected()
        options = self._listed(self._expression)
        if not self._symbol("]"):
            self._unexpected()
        return In(left, options)

    def _sum(self) -> Expression:
        return self._binary(("+", "-"), self._product)

    def _product(self) -> Expression:
        return self._binary(("*", "/", "%"), self._power)

    def _binary(self, operators: tuple[str, ...], operand: Callable[[], Expression]) -> Expression:
        left = operand()
        while operator := next(filter(self._symbol, operators), None):
            left = self._operation(operator, left, operand())
        return left

    def _operation(self, operator: str, left: Expression, right: Expression) -> Operation:
        self._operators += 1
        if self._operators > MOST_OPERATORS:
            self._refuse(f"A query can have at most {MOST_OPERATORS} operators")
        return Operation(operator, (left, right))

    def _power(self) -> Expression:
        base = self._unary()
        return self._operation("^", base, self._power()) if self._symbol("^") else base

    def _unary(self) -> Expression:
        return Operation("-", (self._primary(),)) if self._symbol("-") else self._primary()

    def _primary(self) -> Expression:
        if self._symbol("("):
            inner = self._expression()
            if not self._symbol(")"):
                self._unexpected()
            return inner
        text = self._string()
        if text is not None:
            return Constant(text)
        number = self._match(_NUMBER)
        if number is not None:
            return Constant(float(number[0]) if re.search(r"[.eE]", number[0]) else int(number[0]))
        function = self._match(_FUNCTION)
        if function is not None:
            return self._call(function)
        return self._field()

    def _call(self, found: re.Match[str]) -> Call:
        lowered = found[1].lower()
        name = next((known for known in (*SCALARS, *AGGREGATES) if known.lower() == lowered), None)
        if name is None:
            raise MalformedQuery(
                f"{found[1]} is not a function of the embedded AWS's Logs Insights", found.start(), self._at
            )
        if name in AGGREGATES and not self._aggregating:
            raise MalformedQuery(f"{name} can only be used in stats", found.start(), self._at)
        arguments: tuple[Expression, ...] = ()
        if not self._symbol(")"):
            arguments = self._listed(self._argument)
            if not self._symbol(")"):
                self._unexpected()
        fewest, most = (AGGREGATES.get(name) or SCALARS[name]).arity
        if not fewest <= len(arguments) <= most:
            raise MalformedQuery(f"{name} does not take {len(arguments)} arguments", found.start(), self._at)
        for index, argument in enumerate(arguments):
            if isinstance(argument, Star) and name != "count":
                raise MalformedQuery(f"{name} does not take *", found.start(), self._at)
            if isinstance(argument, Period) is not (_PERIOD_AT.get(name) == index):
                raise MalformedQuery(
                    f"Argument {index + 1} of {name} must {'not ' * isinstance(argument, Period)}be a "
                    "period of time",
                    found.start(),
                    self._at,
                )
        return Call(name, arguments)

    def _argument(self) -> Expression:
        if self._symbol("*"):
            return Star()
        self._skip()
        start = self._at
        period = self._match(_PERIOD)
        if period is None:
            return self._expression()
        if period[2].lower() not in UNITS:
            raise MalformedQuery(f"{period[0]} is not a period of time", start, self._at)
        return Period(int(period[1]), period[2].lower())

    def _field(self) -> Field:
        quoted = self._match(_QUOTED_FIELD)
        if quoted is not None:
            return Field(quoted[1])
        self._skip()
        before = self._at
        plain = self._match(_FIELD)
        if plain is None or plain[0].lower() in _RESERVED:
            self._at = before
            self._unexpected()
        return Field(plain[0])

    # Words

    def _name(self) -> str:
        return self._field().name

    def _listed(self, read: Callable[[], T]) -> tuple[T, ...]:
        items = [read()]
        while self._symbol(","):
            items.append(read())
        return tuple(items)

    def _string(self) -> str | None:
        found = self._match(_TEXT)
        if found is None:
            return None
        inner = found[1] if found[1] is not None else found[2]
        return re.sub(r"\\(.)", lambda escaped: {"n": "\n", "t": "\t"}.get(escaped[1], escaped[1]), inner)

    def _regex(self) -> regex.Pattern[str]:
        self._skip()
        start = self._at
        found = self._match(_REGEX)
        if found is None:
            self._unexpected()
        try:
            return regex.compile(found[1].replace("\\/", "/"))
        except regex.error as error:
            raise MalformedQuery(f"Invalid regular expression: {error}", start, self._at) from error

    def _keyword(self, word: str) -> bool:
        before = self._at
        found = self._match(_FIELD)
        if found is not None and found[0].lower() == word:
            return True
        self._at = before
        return False

    def _symbol(self, symbol: str) -> bool:
        self._skip()
        if self._text.startswith(symbol, self._at):
            self._at += len(symbol)
            return True
        return False

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._skip()
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _ended(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def _unexpected(self) -> NoReturn:
        self._skip()
        if self._at == len(self._text):
            raise MalformedQuery("unexpected end of the query", self._at, self._at)
        line = self._text.count("\n", 0, self._at) + 1
        position = self._at - self._text.rfind("\n", 0, self._at)
        raise MalformedQuery(
            f"unexpected symbol found {self._text[self._at]} at line {line} and position {position}",
            self._at,
            self._at + 1,
        )

    def _refuse(self, message: str) -> NoReturn:
        raise MalformedQuery(message, 0, len(self._text))
