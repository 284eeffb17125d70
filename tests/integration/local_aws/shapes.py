"""Whether an answer is one that botocore's model allows: required members, types, enums, patterns, bounds."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import botocore.model

from local_aws.wire import java_pattern, service_model

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "boolean": (bool,),
    "timestamp": (datetime.datetime,),
    "blob": (bytes,),
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
}


def violations(service: str, operation: str, answer: dict[str, Any]) -> list[str]:
    """Everything in `answer` that the operation's output shape does not allow."""
    shape = service_model(service).operation_model(operation).output_shape
    answer = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    return list(_walk(shape, answer, operation)) if shape else []


def _walk(shape: botocore.model.Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, _TYPES[shape.type_name]):
        yield f"{path} is a {type(value).__name__}, not a {shape.type_name}"
        return
    if isinstance(shape, botocore.model.StructureShape):
        yield from (f"{path} lacks {name}" for name in shape.required_members if name not in value)
        yield from (
            f"{path} has {name}, which is not in the model" for name in value.keys() - shape.members.keys()
        )
        for name in value.keys() & shape.members.keys():
            yield from _walk(shape.members[name], value[name], f"{path}.{name}")
    elif isinstance(shape, botocore.model.ListShape):
        for index, item in enumerate(value):
            yield from _walk(shape.member, item, f"{path}[{index}]")
    elif isinstance(shape, botocore.model.MapShape):
        for key, item in value.items():
            yield from _walk(shape.key, key, f"{path} key")
            yield from _walk(shape.value, item, f"{path}.{key}")
    elif isinstance(shape, botocore.model.StringShape):
        pattern = shape.metadata.get("pattern")
        if shape.enum and value not in shape.enum:
            yield f"{path} is {value!r}, which is none of {shape.enum}"
        if pattern and not java_pattern(pattern).fullmatch(value):
            yield f"{path} is {value!r}, which does not match {pattern}"
    for bound, broken in (
        ("min", lambda size, limit: size < limit),
        ("max", lambda size, limit: size > limit),
    ):
        limit = shape.metadata.get(bound)
        size = len(value) if isinstance(value, str | list | dict) else value
        if limit is not None and isinstance(size, int | float) and broken(size, limit):
            yield f"{path} is {size}, beyond its {bound} of {limit}"
