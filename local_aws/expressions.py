"""CloudWatch metric math, as far as alarms need it: one value per period from the values of the metrics.

Understood: numbers, ids, + - * / ^, comparisons, AND/OR, parentheses, lists, METRICS(), and the functions
ABS, AVG, CEIL, FILL, FLOOR, IF, MAX, MIN and SUM. Everything else is refused by name when the alarm is made.
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence

Values = Mapping[str, float | None]  # of one period, by id; None is a missing value
Result = float | None

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_OF_ONE: dict[str, Callable[[float], float]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}
_OF_MANY: dict[str, Callable[[Sequence[float]], float]] = {
    "SUM": sum,
    "MIN": min,
    "MAX": max,
    "AVG": lambda values: sum(values) / len(values),
}


class UnsupportedExpression(ValueError):
    """The expression uses something that is not understood here; the message names it."""


class Expression:
    """A parsed expression over the metrics called `ids`.

    Raises UnsupportedExpression if it is malformed, names an unknown id, or uses what is not understood.
    """

    def __init__(self, text: str, ids: Sequence[str]) -> None:
        self.text, self._ids = text, list(ids)
        python = text.replace("^", "**").replace("&&", " and ").replace("||", " or ")
        python = re.sub(r"\b(AND|OR)\b", lambda match: match[1].lower(), python)
        try:
            self._tree = ast.parse(python.strip(), mode="eval").body
        except SyntaxError as error:
            raise UnsupportedExpression(f"The metric math expression {text!r} cannot be read.") from error
        self._check(self._tree)

    def __call__(self, values: Values) -> Result:
        """The value of one period, None if a value it needs is missing or it divides by zero."""
        try:
            return self._scalar(self._tree, values)
        except (ZeroDivisionError, OverflowError):
            return None

    def _refuse(self, node: ast.AST) -> UnsupportedExpression:
        return UnsupportedExpression(
            f"The embedded AWS cannot evaluate {ast.unparse(node)!r} of the metric math {self.text!r}."
        )

    def _check(self, node: ast.AST) -> None:
        match node:
            case ast.Constant(value=int() | float()):
                return
            case ast.Name(id=name) if name in self._ids:
                return
            case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
                parts: list[ast.expr] = [node.left, node.right]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                parts = [node.operand]
            case ast.BoolOp():
                parts = node.values
            case ast.Compare(ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                parts = [node.left, right]
            case ast.Call(func=ast.Name(id=name), args=[one], keywords=[]) if name.upper() in _OF_ONE:
                parts = [one]
            case ast.Call(func=ast.Name(id=name), args=[ast.List(elts=parts)]) if name.upper() in _OF_MANY:
                pass
            case ast.Call(func=ast.Name(id=name), args=[ast.Call(func=ast.Name(id="METRICS"), args=[])]) if (
                name.upper() in _OF_MANY
            ):
                return
            case ast.Call(func=ast.Name(id="IF"), args=[_, _, _] as parts):
                pass
            case ast.Call(func=ast.Name(id="FILL"), args=[_, _] as parts):
                pass
            case _:
                raise self._refuse(node)
        for part in parts:
            self._check(part)

    def _scalar(self, node: ast.expr, values: Values) -> Result:
        match node:
            case ast.Constant(value=value):
                return float(value)  # type: ignore[arg-type]
            case ast.Name(id=name):
                return values[name]
            case ast.UnaryOp(op=op, operand=operand):
                value = self._scalar(operand, values)
                return value if value is None or isinstance(op, ast.UAdd) else -value
            case ast.BinOp(left=left, op=op, right=right):
                return _both(_ARITHMETIC[type(op)], self._scalar(left, values), self._scalar(right, values))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _both(_COMPARISONS[type(op)], self._scalar(left, values), self._scalar(right, values))
            case ast.BoolOp(op=op, values=parts):
                truths = [self._scalar(part, values) for part in parts]
                if None in truths:
                    return None
                return float(all(truths) if isinstance(op, ast.And) else any(truths))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._function(name.upper(), arguments, values)
        raise self._refuse(node)

    def _function(self, name: str, arguments: list[ast.expr], values: Values) -> Result:
        if name in _OF_MANY:
            many = arguments[0].elts if isinstance(arguments[0], ast.List) else None
            found = (
                [values[one] for one in self._ids]
                if many is None
                else [self._scalar(x, values) for x in many]
            )
            present = [value for value in found if value is not None]
            return float(_OF_MANY[name](present)) if present else None
        first = self._scalar(arguments[0], values)
        if name == "FILL":
            return self._scalar(arguments[1], values) if first is None else first
        if name == "IF":
            return None if first is None else self._scalar(arguments[1 if first else 2], values)
        return None if first is None else float(_OF_ONE[name](first))


def _both(function: Callable[[float, float], float], left: Result, right: Result) -> Result:
    return None if left is None or right is None else float(function(left, right))
