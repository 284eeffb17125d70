"""Serving an AWS JSON 1.1 service from its botocore model: dispatch, validation, answers and errors.

An operation is a function from the request's parameters to the answer's members, both as botocore names them.
Whatever the model says about a request (required members, types, enums, patterns, bounds) is enforced here.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import botocore.loaders
import botocore.model
import regex
from botocore.validate import ParamValidator

Json = dict[str, Any]
Operation = Callable[[Json], Json]
Response = tuple[int, dict[str, str], bytes]

CONTENT_TYPE = "application/x-amz-json-1.1"


class ServiceError(Exception):
    """An error of an AWS service: its code, its message for the caller, the HTTP status, and whatever other
    members its shape has.
    """

    def __init__(self, code: str, message: str, status: int = 400, members: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.members = code, message, status, members or {}


def validation_error(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


@functools.cache
def service_model(name: str) -> botocore.model.ServiceModel:
    """botocore's model of a service, the one the clients are made from."""
    description = botocore.loaders.Loader().load_service_model(name, "service-2")
    return botocore.model.ServiceModel(description, service_name=name)


class JsonService:
    """One service: botocore's name for it and the operations that are implemented here."""

    def __init__(self, name: str, operations: Mapping[str, Operation]) -> None:
        self.model = service_model(name)
        self.operations = operations

    async def handle(self, method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        """MiniStack's handler signature: (status, headers, body) for one request."""
        name = str(headers.get("x-amz-target", "")).rpartition(".")[2]
        try:
            return _answer(200, self.call(name, _parse(body)))
        except ServiceError as error:
            return error_response(error)

    def call(self, name: str, parameters: Json) -> Json:
        """The answer of operation `name`; raises ServiceError for a bad request or an unknown operation."""
        operation = self.operations.get(name)
        if operation is None:
            raise ServiceError(
                "UnknownOperationException",
                f"{name or 'A request without target'} is not an operation of {self.model.service_name} "
                "that the embedded AWS serves: docs/embedded-aws.md lists those it does.",
            )
        shape = self.model.operation_model(name).input_shape
        if shape is not None:
            validate(shape, parameters)
        return operation(parameters)


def error_response(error: ServiceError) -> Response:
    return _answer(error.status, {"__type": error.code, "message": error.message, **error.members})


def _answer(status: int, members: Json) -> Response:
    body = json.dumps(members, default=_encode).encode()
    return status, {"Content-Type": CONTENT_TYPE}, body


def _encode(value: object) -> float:
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} has no form in JSON 1.1")


def _parse(body: bytes) -> Json:
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise ServiceError("SerializationException", f"The request is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ServiceError("SerializationException", "The request is not a JSON object.")
    return parameters


def validate(shape: botocore.model.Shape, value: Any) -> None:
    """Refuse what the shape does not allow, with a ValidationException worded as AWS words it."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        raise validation_error(report.generate_report())
    errors = list(_constraint_errors(shape, value, ""))
    if errors:
        found = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: "
        raise validation_error(found + "; ".join(errors))


def _constraint_errors(shape: botocore.model.Shape, value: Any, path: str) -> Iterator[str]:
    """What ParamValidator leaves to the service: enums, patterns and upper bounds."""
    if isinstance(shape, botocore.model.StructureShape):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _constraint_errors(member, value[name], _join(path, name))
        return
    if isinstance(shape, botocore.model.ListShape):
        for index, item in enumerate(value, 1):
            yield from _constraint_errors(shape.member, item, f"{path}.{index}.member")
    if isinstance(shape, botocore.model.MapShape):
        for key, item in value.items():
            yield from _constraint_errors(shape.value, item, f"{path}.{key}.member")
    for rule in _broken_rules(shape, value):
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: {rule}"


def _join(path: str, name: str) -> str:
    member = name[:1].lower() + name[1:]
    return f"{path}.{member}" if path else member


def _broken_rules(shape: botocore.model.Shape, value: Any) -> Iterator[str]:
    maximum = shape.metadata.get("max")
    if isinstance(shape, botocore.model.StringShape):
        if shape.enum and value not in shape.enum:
            yield f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        pattern = shape.metadata.get("pattern")
        if pattern and not java_pattern(pattern).fullmatch(value):
            yield f"Member must satisfy regular expression pattern: {pattern}"
    if maximum is not None and shape.type_name in ("string", "list", "map") and len(value) > maximum:
        yield f"Member must have length less than or equal to {maximum}"
    if maximum is not None and shape.type_name in ("integer", "long", "float", "double") and value > maximum:
        yield f"Member must have value less than or equal to {maximum}"


@functools.cache
def java_pattern(pattern: str) -> regex.Pattern[str]:
    r"""A pattern of a service model: Java's dialect, whose \p{Print} and the like `regex` knows and `re` does
    not."""  # Java writes what is beyond the basic plane as pairs of surrogates, and the very end as \z.
    pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010ffff").replace(r"\z", r"\Z")
    return regex.compile(pattern)
