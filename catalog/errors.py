"""Problems of catalog files: what they say, and how pydantic's findings become them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# From the top of a file to a value: mapping keys and list positions.
Path = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong: `models/x/model.yaml:7: scaling.max: 0 is not allowed: must be >= 1`."""

    file: str
    line: int
    field: str
    message: str

    @classmethod
    def at(cls, file: str, line: int, path: Path, message: str) -> Self:
        """A problem of the value that `path` leads to."""
        return cls(file, line, dotted(path), message)

    def __str__(self) -> str:
        parts = (f"{self.file}:{self.line}", self.field, self.message)
        return ": ".join(printable(part) for part in parts if part)


class CatalogError(Exception):
    """Every problem of every file that was read, in order of file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """`("clients", 0, "scopes")` -> `clients[0].scopes`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def show(value: object) -> str:
    """A refused value, short enough for one line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """The text with control characters escaped, so that a file cannot write to the reader's terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def explain(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Path, str]]:
    """Where each of pydantic's findings is in the file, and what to say: what is wrong, what is allowed."""
    details = error.errors(include_url=False)
    for detail in details:
        # Pydantic counts only the items that are valid, so a list of refused items is also "too short".
        inside = (d["loc"] for d in details if len(d["loc"]) > len(detail["loc"]))
        if detail["type"] == "too_short" and any(
            loc[: len(detail["loc"])] == detail["loc"] for loc in inside
        ):
            continue
        yield _explain(detail, model)


def _explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[Path, str]:
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        return error["loc"], _unknown_key(error["loc"], model)
    path = tuple(part for part in error["loc"] if part != "[key]")
    if kind == "missing":
        allowed = _description(path, model)
        return path, f"is required{': ' + allowed if allowed else ''}"
    allowed = _allowed(kind, ctx, error["msg"])
    if kind == "string_pattern_mismatch" and path == error["loc"]:
        allowed = _description(path, model)
    return path, f"{show(value)} is not allowed: {allowed}"


def _allowed(kind: str, ctx: dict[str, Any], message: str) -> str:
    match kind:
        case "refused":
            return str(ctx["reason"])
        case "greater_than_equal":
            return f"must be >= {ctx['ge']}"
        case "less_than_equal":
            return f"must be <= {ctx['le']}"
        case "less_than":
            return f"must be < {ctx['lt']}"
        case "literal_error":
            return f"must be one of {ctx['expected']}"
        case "string_pattern_mismatch":
            return f"must match {ctx['pattern']}"
        case "string_type":
            return "must be text (put it in quotes if it looks like a number)"
        case "int_type" | "int_from_float":
            return "must be a whole number, without quotes"
        case "float_type":
            return "must be a number, without quotes"
        case "finite_number":
            return "must be a finite number"
        case "bool_type":
            return "must be true or false"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of keys to values"
        case "tuple_type":
            return "must be a list"
        case "string_too_short":
            return f"must have at least {ctx['min_length']} characters"
        case "string_too_long":
            return f"must have at most {ctx['max_length']} characters"
        case "too_short":
            return f"must have at least {ctx['min_length']} item(s)"
        case "too_long":
            return f"must have at most {ctx['max_length']} items"
    return message


def _unknown_key(path: Path, model: type[BaseModel]) -> str:
    key = str(path[-1])
    section = _section(path[:-1], model)
    misplaced: dict[str, str] = getattr(section, "misplaced", {})
    if key in misplaced:
        return misplaced[key]
    known = list(section.model_fields)
    close = get_close_matches(key, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"must be one of {', '.join(known)}"
    return f"unknown key {key!r}, {remedy}"


def _section(path: Path, model: type[BaseModel]) -> type[BaseModel]:
    """The model that validates the mapping at `path`."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:  # a list position or a free key stays in the model that its field led to
            model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _description(path: Path, model: type[BaseModel]) -> str:
    """What the nearest documented field on the path says of itself, as one sentence without its full stop."""
    names = [i for i, part in enumerate(path) if isinstance(part, str)]
    for i in reversed(names):
        field = _section(path[:i], model).model_fields.get(str(path[i]))
        if field is not None:
            return (field.description or "").removesuffix(".")
    return ""
