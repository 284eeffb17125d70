"""API Gateway mapping templates: Velocity with `$input`, `$util`, `$context` and `$stageVariables`.

Airspeed parses and walks the template; this module gives it API Gateway's objects and Java's methods, and
makes it strict. On AWS a template that misuses Velocity renders silently wrong text; here whatever is not
modelled raises `TemplateFailure`, whose message names the expression and the way out, and the caller answers
500.

API Gateway's behaviour modelled here (documentation: api-gateway-mapping-template-reference):

- A path that is absent from the body is the empty text, which Velocity takes for *true*:
  `#if($input.path('$.x'))` is a trap on AWS, so conditions must be booleans here. Write
  `#if($input.path('$.x') != "")`.
- A request without a body reads as `{}`. An absent claim, stage variable or parameter reads as the empty
  text.
- `$util.escapeJavaScript` escapes `'` and `/` as well, and anything that is not ASCII.
- A member of `$context.requestOverride` or `$context.responseOverride` can be set once; a second write fails.
- `#set` to null leaves the variable as it was (Velocity 1).
- Only `#if #elseif #else #set #foreach #stop` and comments are modelled.
"""

import base64
import binascii
import json
import math
import operator
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from airspeed import operators


class TemplateFailure(Exception):
    """A template that cannot be rendered as API Gateway would; the message is for the template's author."""


class BodyNotJson(TemplateFailure):
    """`$input.json` or `$input.path` on a body that is not JSON, which a client can cause."""


# --- JSONPath -----------------------------------------------------------------------------------------------

_PATH_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']+)'\]|\[\"([^\"]+)\"\]")
_ABSENT = object()


def json_path(document: object, path: str) -> Any:
    """The value at `path` (`$`, `.name`, `['name']`, `[index]`) in a document; the empty text where absent.

    Raises TemplateFailure for the rest of JSONPath (wildcards, filters, `..`), which is not modelled.
    """
    if not path.startswith("$"):
        raise TemplateFailure(f"JSONPath {path!r} must start with '$'")
    position, value = 1, document
    while position < len(path):
        step = _PATH_STEP.match(path, position)
        if step is None:
            raise TemplateFailure(
                f"JSONPath {path!r}: {path[position:]!r} is not modelled; use .name, ['name'] and [index]"
            )
        name = next((group for group in (step[1], step[3], step[4]) if group is not None), None)
        if name is not None:
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        else:
            index = int(step[2])
            value = value[index] if isinstance(value, list) and index < len(value) else _ABSENT
        if value is _ABSENT:
            return ""
        position = step.end()
    return value


# --- API Gateway's objects ----------------------------------------------------------------------------------


class Headers(dict[str, str]):
    """Header names read in any case, as HTTP defines them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self._folded = {name.lower(): value for name, value in headers.items()}

    def get(self, name: str, default: Any = None) -> Any:
        return self._folded.get(name.lower(), default)

    def __getitem__(self, name: str) -> str:
        return self._folded[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._folded


@dataclass(frozen=True)
class Input:
    """`$input`: the body as text, and the request's parameters."""

    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    querystring: Mapping[str, str] = field(default_factory=dict)
    path_parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> str:
        return self.text or "{}"

    def document(self) -> Any:
        """The parsed body; raises BodyNotJson."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BodyNotJson(f"the body is not JSON: {error}") from None

    def path(self, expression: str) -> Any:
        return json_path(self.document(), expression)

    def json(self, expression: str) -> str:
        return json.dumps(self.path(expression), separators=(",", ":"), ensure_ascii=False)

    def params(self, *names: str) -> Any:
        groups: dict[str, Mapping[str, str]] = {
            "path": dict(self.path_parameters),
            "querystring": dict(self.querystring),
            "header": Headers(self.headers),
        }
        if not names:
            return groups
        found = (group.get(names[0]) for group in groups.values())
        return next((value for value in found if value is not None), "")


class OnceOnly(dict[str, Any]):
    """Members that a template may set once each, as AWS documents for overrides."""

    def __init__(self, label: str, members: Mapping[str, Any] | None = None, closed: bool = False) -> None:
        super().__init__(members or {})
        self._label = label
        self._closed = closed

    def __setitem__(self, name: str, value: Any) -> None:
        if self._closed and name not in ("status",):
            raise TemplateFailure(f"${self._label}.{name} cannot be overridden")
        if name in self:
            raise TemplateFailure(f"${self._label}.{name} is set a second time; an override applies once")
        super().__setitem__(name, value)


@dataclass(frozen=True)
class Overrides:
    """What a template wrote to `$context.requestOverride` or `$context.responseOverride`."""

    header: Mapping[str, str]
    querystring: Mapping[str, str]
    path: Mapping[str, str]
    status: int | None


_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def _escape_java_script(text: object) -> str:
    """Apache Commons' escapeEcmaScript, which API Gateway uses: the text, as UTF-16 units, in ASCII."""
    out = []
    for char in _text(text, "$util.escapeJavaScript(...)"):
        if char in "'\"\\/":
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif 32 <= ord(char) < 127:
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out.extend(f"\\u{units[i] << 8 | units[i + 1]:04X}" for i in range(0, len(units), 2))
    return "".join(out)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TemplateFailure(f"$util.parseJson: not JSON: {error}") from None


def _base64_decode(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise TemplateFailure(f"$util.base64Decode: {error}") from None


_UTIL: dict[str, Callable[..., Any]] = {
    "escapeJavaScript": _escape_java_script,
    "parseJson": _parse_json,
    "urlEncode": lambda text: urllib.parse.quote_plus(_text(text, "$util.urlEncode(...)")),
    "urlDecode": lambda text: urllib.parse.unquote_plus(text),
    "base64Encode": lambda text: base64.b64encode(_text(text, "$util.base64Encode(...)").encode()).decode(),
    "base64Decode": _base64_decode,
}


# --- Java's methods on plain values -------------------------------------------------------------------------


def _java_replacement(replacement: str) -> str:
    """A Java replacement string (`$1`, `\\$`) in Python's notation."""
    return re.sub(
        r"\\(.)|\$(\d)", lambda m: f"\\g<{m[2]}>" if m[2] else m[1].replace("\\", r"\\"), replacement
    )


def _list_add(values: list[Any], value: Any) -> bool:
    values.append(value)
    return True


def _map_put(values: dict[Any, Any], key: Any, value: Any) -> Any:
    before = values.get(key)
    values[key] = value
    return before


_METHODS: dict[type, dict[str, Callable[..., Any]]] = {
    str: {
        "length": len,
        "isEmpty": lambda text: not text,
        "contains": lambda text, part: part in text,
        "startsWith": str.startswith,
        "endsWith": str.endswith,
        "equals": operator.eq,
        "equalsIgnoreCase": lambda text, other: text.lower() == other.lower(),
        "indexOf": str.find,
        "lastIndexOf": str.rfind,
        "substring": lambda text, start, end=None: text[start:end],
        "replace": lambda text, old, new: text.replace(old, new),
        "replaceAll": lambda text, pattern, new: re.sub(pattern, _java_replacement(new), text),
        "split": lambda text, pattern: re.split(pattern, text),
        "matches": lambda text, pattern: re.fullmatch(pattern, text) is not None,
        "toLowerCase": str.lower,
        "toUpperCase": str.upper,
        "trim": str.strip,
        "concat": operator.add,
        "toString": str,
    },
    list: {
        "size": len,
        "isEmpty": lambda values: not values,
        "get": operator.getitem,
        "contains": lambda values, value: value in values,
        "add": _list_add,
    },
    dict: {
        "size": len,
        "isEmpty": lambda values: not values,
        "get": lambda values, key: values.get(key),
        "put": _map_put,
        "containsKey": lambda values, key: key in values,
        "keySet": lambda values: list(values),
        "values": lambda values: list(values.values()),
    },
}


def _text(value: Any, expression: str) -> str:
    """A value as Velocity prints it; raises TemplateFailure where Java's notation would surprise."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value) and (value == 0 or 1e-3 <= abs(value) < 1e7):
            return repr(value)
        case None:
            raise TemplateFailure(
                f"{expression} is null; write a quiet reference, $!, if nothing should be printed"
            )
    raise TemplateFailure(
        f"{expression} would print Java's notation of a {type(value).__name__}; use $input.json(...)"
    )


def _condition(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TemplateFailure(
            f"a condition is {value!r}, not a boolean; Velocity takes even an empty text for true: compare it"
        )
    return value


def _equal(left: Any, right: Any) -> bool:
    numbers = (int, float)
    alike = type(left) is type(right) or (isinstance(left, numbers) and isinstance(right, numbers))
    if not alike and str(left) == str(right):
        raise TemplateFailure(
            f"comparing {left!r} with {right!r}: the types differ, so Velocity's answer is unclear"
        )
    return alike and bool(left == right)


def _numeric(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TemplateFailure(f"{value!r} is not a number in a comparison or a calculation")
        return compute(left, right)

    return apply


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, str) or isinstance(right, str):
        return _text(left, repr(left)) + _text(right, repr(right))
    return _numeric(operator.add)(left, right)


# --- Airspeed, made strict ----------------------------------------------------------------------------------
# Airspeed's elements find each other as names of its module: a stricter element is installed under its name.


class _Name(operators.NameOrCall):  # type: ignore[misc]
    """A name, a call or an index after `$` or `.`; what does not exist fails instead of rendering nothing."""

    def calculate(self, current: Any, loader: Any, namespace: Any) -> Any:
        value = self._member(current)
        if self.parameters is not None:
            if not callable(value):
                raise TemplateFailure(f"{self.my_text()}: {self.name} is not a method")
            arguments = self.parameters.calculate(namespace, loader)
            try:
                return value(*arguments)
            except (TypeError, ValueError, IndexError, AttributeError, re.error) as error:
                raise TemplateFailure(f"{self.my_text()}: {error}") from None
        if callable(value):
            raise TemplateFailure(f"{self.my_text()} is a method: call it with (...)")
        if self.index is not None:
            return _indexed(value, self.index.calculate(namespace, loader), self.my_text())
        return value

    def _member(self, current: Any) -> Any:
        if isinstance(current, operators.LocalNamespace):
            return current[self.name]
        if isinstance(current, Input):
            if self.name in ("body", "json", "path", "params"):
                return getattr(current, self.name)
            raise TemplateFailure(f"$input.{self.name} does not exist; there are body, json, path and params")
        methods = next((table for kind, table in _METHODS.items() if isinstance(current, kind)), {})
        if self.parameters is not None and self.name in methods:
            method = methods[self.name]
            return lambda *arguments: method(current, *arguments)
        if isinstance(current, dict):
            return current[self.name] if self.name in current else _missing(current, self.name)
        raise TemplateFailure(f".{self.my_text()} is not modelled on {current!r}")


class _Known(dict[str, Any]):
    """A map whose members are fixed: asking for another one is a mistake in the template."""

    def __init__(self, label: str, members: Mapping[str, Any]) -> None:
        super().__init__(members)
        self.label = label


def _missing(values: dict[Any, Any], name: str) -> Any:
    if isinstance(values, _Known):
        raise TemplateFailure(f"{values.label}.{name} is not modelled; known: {', '.join(sorted(values))}")
    return ""


def _indexed(value: Any, index: Any, expression: str) -> Any:
    if isinstance(value, dict):
        return value[index] if index in value else _missing(value, index)
    if isinstance(value, list) and isinstance(index, int) and -len(value) <= index < len(value):
        return value[index]
    raise TemplateFailure(f"{expression}: there is no [{index!r}]")


class _Index(operators.SubExpression):  # type: ignore[misc]
    def calculate(self, current: Any, loader: Any, namespace: Any) -> Any:
        if not isinstance(self.expression, operators.ArrayIndex):
            return self.expression.calculate(current, loader, namespace)
        value = _indexed(current, self.expression.calculate(namespace, loader), self.my_text())
        return self.subexpression.calculate(value, loader, namespace) if self.subexpression else value


class _Reference(operators.FormalReference):  # type: ignore[misc]
    def evaluate_raw(self, stream: Any, namespace: Any, loader: Any) -> None:
        if self.expression is None:
            stream.write(self.my_text())
            return
        value = self.expression.calculate(namespace, loader)
        if value is None and self.my_text().startswith("$!"):
            return
        stream.write(_text(value, self.my_text()))


class _Operator(operators.BinaryOperator):  # type: ignore[misc]
    OPERATORS = {
        **{name: _numeric(operator.gt) for name in (">", "gt")},
        **{name: _numeric(operator.ge) for name in (">=", "ge")},
        **{name: _numeric(operator.lt) for name in ("<", "lt")},
        **{name: _numeric(operator.le) for name in ("<=", "le")},
        **dict.fromkeys(("==", "eq"), _equal),
        **{name: lambda left, right: not _equal(left, right) for name in ("!=", "ne")},
        **dict.fromkeys(("||", "&&", "or", "and")),  # evaluated by _Expression, which can stop early
        "+": _plus,
        "-": _numeric(operator.sub),
        "*": _numeric(operator.mul),
        "/": _numeric(operator.floordiv),
        "%": _numeric(operator.mod),
    }
    PRECEDENCE = {**operators.BinaryOperator.PRECEDENCE, "!=": 8, "ne": 8}

    def parse(self) -> None:
        (self.symbol,) = self.identity_match(self.BINARY_OP)
        if self.symbol not in self.OPERATORS:
            raise operators.NoMatch
        self.apply_to = self.OPERATORS[self.symbol]
        self.precedence = self.PRECEDENCE[self.symbol]


class _Expression(operators.Expression):  # type: ignore[misc]
    """Operators by precedence, left to right; `&&` and `||` stop as soon as they are decided."""

    def calculate(self, namespace: Any, loader: Any) -> Any:
        return self._evaluate(self.expression, namespace, loader)

    def _evaluate(self, terms: list[Any], namespace: Any, loader: Any) -> Any:
        if len(terms) == 1:
            return terms[0].calculate(namespace, loader)
        # The loosest operator, and of several the last, is the root of the tree.
        at = max(range(1, len(terms), 2), key=lambda i: (terms[i].precedence, i))
        root, left = terms[at], self._evaluate(terms[:at], namespace, loader)
        if root.symbol in ("&&", "and", "||", "or"):
            if _condition(left) is (root.symbol in ("||", "or")):
                return left
            return _condition(self._evaluate(terms[at + 1 :], namespace, loader))
        return root.apply_to(left, self._evaluate(terms[at + 1 :], namespace, loader))


class _Not(operators.UnaryOperatorValue):  # type: ignore[misc]
    def calculate(self, namespace: Any, loader: Any) -> bool:
        return not _condition(self.value.calculate(namespace, loader))


class _Condition(operators.Condition):  # type: ignore[misc]
    def calculate(self, namespace: Any, loader: Any) -> bool:
        return _condition(self.expression.calculate(namespace, loader))


class _Assignment(operators.Assignment):  # type: ignore[misc]
    def evaluate_raw(self, stream: Any, namespace: Any, loader: Any) -> None:
        value = self.value.calculate(namespace, loader)
        if value is None:
            return
        if not self.terms:
            namespace.set_inherited(self.root_term, value)
            return
        target = namespace[self.root_term]
        names = [term.calculate(namespace, loader) for term in self.terms]
        for name in names[:-1]:
            target = target[name] if name in target else _missing(target, name)
        if isinstance(target, _Known) or not isinstance(target, dict | list):
            raise TemplateFailure(
                f"#set{self.my_text().strip()}: ${self.root_term} cannot be written to there"
            )
        target[names[-1]] = value


class _Hash(operators.FallthroughHashText):  # type: ignore[misc]
    """A `#` that starts no directive is text, but half a directive is a mistake."""

    def parse(self) -> None:
        super().parse()
        broken = _DIRECTIVE.match(self._full_text, self.start)
        if broken:
            raise TemplateFailure(
                f"syntax: an incomplete {broken[0]} at {self._full_text[self.start :][:40]!r}"
            )


_STRICT = {
    "NameOrCall": _Name,
    "SubExpression": _Index,
    "FormalReference": _Reference,
    "BinaryOperator": _Operator,
    "Expression": _Expression,
    "UnaryOperatorValue": _Not,
    "Condition": _Condition,
    "Assignment": _Assignment,
    "FallthroughHashText": _Hash,
}
for _element, _strict in _STRICT.items():
    setattr(operators, _element, _strict)

_DIRECTIVE = re.compile(r"#\{?(if|elseif|else|set|foreach|end)\b")
_UNMODELLED = re.compile(r"#\{?(include|parse|macro|define|evaluate|return|break)\b")
_ASSIGNED = re.compile(r"#\{?set\}?\s*\(\s*\$!?\{?(\w+)")


class _Namespace(dict[str, Any]):
    """The template's roots; a variable that is never assigned in the template is a mistake in it."""

    def __init__(self, roots: Mapping[str, Any], assigned: frozenset[str]) -> None:
        super().__init__(roots)
        self._assigned = assigned

    def __missing__(self, name: str) -> None:
        if name not in self._assigned:
            raise TemplateFailure(f"${name} is not set in the template")


@lru_cache(maxsize=256)
def _compile(template: str) -> Any:
    unmodelled = _UNMODELLED.search(template)
    if unmodelled:
        raise TemplateFailure(f"the directive #{unmodelled[1]} is not modelled")
    compiled = operators.Template(template)
    try:
        compiled.ensure_compiled()
    except operators.TemplateError as error:
        raise TemplateFailure(f"syntax: {error}") from None
    except operators.NoMatch:
        raise TemplateFailure("syntax: an incomplete directive") from None
    return compiled


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__  # type: ignore[assignment]


def render(
    template: str,
    request: Input,
    context: Mapping[str, Any],
    stage_variables: Mapping[str, str],
    override: str,
) -> tuple[str, Overrides]:
    """Render a mapping template.

    `context` nests as `$context` does; `override` is 'requestOverride' or 'responseOverride', the one that
    this template may write. Returns the text and the overrides. Raises TemplateFailure; BodyNotJson where the
    body is to blame.
    """
    groups: dict[str, Any] = {
        name: OnceOnly(f"context.{override}.{name}") for name in ("header", "querystring", "path")
    }
    if override == "responseOverride":
        groups = {"header": groups["header"]}
    writable = OnceOnly(f"context.{override}", groups, closed=True)
    roots = {
        "input": request,
        "util": _Known("$util", _UTIL),
        "context": _Known("$context", {**context, override: writable}),
        "stageVariables": dict(stage_variables),
    }
    try:
        text = _compile(template).merge(_Namespace(roots, frozenset(_ASSIGNED.findall(template))))
    except TemplateFailure:
        raise
    except operators.TemplateError as error:
        for cause in _causes(error):
            if isinstance(cause, TemplateFailure):
                raise cause from None
        raise TemplateFailure(str(error)) from None
    return text, Overrides(
        header={name: _text(value, name) for name, value in groups["header"].items()},
        querystring={name: _text(value, name) for name, value in groups.get("querystring", {}).items()},
        path={name: _text(value, name) for name, value in groups.get("path", {}).items()},
        status=_status(writable.get("status")),
    )


def _status(value: Any) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[2-5]\d\d", str(value)):
        raise TemplateFailure(f"$context.responseOverride.status is {value!r}, not a status from 200 to 599")
    return int(value)
