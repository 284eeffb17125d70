"""The base of every catalog model, and the few field types that models and environments share."""

from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

T = TypeVar("T")

# YAML gives lists; a frozen model holds tuples. Everything else is strict, so that "1024" is never 1024.
Items = Annotated[tuple[T, ...], Field(strict=False)]

# One rule for every name that becomes part of an AWS name, a URL or a folder. With the `inference-<env>-`
# prefix the longest model name still fits a SageMaker endpoint (63 characters) and a Lambda function (64).
NAME_PATTERN = r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$"
Name = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="3 to 32 lower-case letters, digits and hyphens; a letter first, no hyphen last.",
    ),
]


class Section(BaseModel):
    """A mapping in a catalog file: immutable, no unknown keys, no type coercion, no NaN or infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    misplaced: ClassVar[dict[str, str]] = {}
    """Keys that people try here and that belong elsewhere, with what to tell them."""


def refusal(value: object, reason: str, *path: str | int) -> InitErrorDetails:
    """One refused value inside the field being validated; `path` leads from that field to the value."""
    # The reason is passed as context, never as the template: a brace in user input must not be expanded.
    error = PydanticCustomError("refused", "{reason}", {"reason": reason})
    return InitErrorDetails(type=error, loc=path, input=value)


def refuse(*refusals: InitErrorDetails) -> None:
    """Raise the refusals, if any, so that each is reported at its own line."""
    if refusals:
        raise ValidationError.from_exception_data("catalog", list(refusals))


def each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values, refused where one is repeated."""
    refuse(*(refusal(item, "is listed twice", i) for i, item in enumerate(values) if item in values[:i]))
    return values
