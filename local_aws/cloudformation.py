"""Adding a resource type to MiniStack's CloudFormation: its handlers, what replaces it, and its tags."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import botocore.model
from ministack import app
from ministack.services.cloudformation import provisioners, stacks

from local_aws.wire import Json, JsonService

Result = TypeVar("Result")
Created = tuple[str, Json]  # physical id (what Ref returns), attributes (what Fn::GetAtt returns)


@dataclass(frozen=True)
class ResourceType:
    """A type and how it is made, changed and deleted; a handler that raises fails it with its message.

    `create(name, properties)`: `name` is the value of `name_property`, else one CloudFormation generates.
    `update(physical_id, before, after)` is called only when none of `replaced_by` changed; a change of those
    makes a new resource and deletes the old one. `waits` types block until stable, on threads of their own.
    """

    name: str
    create: Callable[[str, Json], Created]
    update: Callable[[str, Json, Json], Created]
    delete: Callable[[str, Json], None]
    replaced_by: tuple[str, ...]
    name_property: str | None = None
    longest_name: int = 63
    tagged: bool = True
    waits: bool = False


_waiting: set[str] = set()


def register(kind: ResourceType) -> None:
    """Let templates use `kind`."""

    def create(logical_id: str, properties: Json, stack_name: str) -> Created:
        given = properties.get(kind.name_property) if kind.name_property else None
        generated = provisioners._physical_name(stack_name, logical_id, max_len=kind.longest_name)
        return kind.create(given or generated, properties)

    def update(physical_id: str, before: Json, after: Json, stack_name: str) -> Created:
        return kind.update(physical_id, before, after)

    provisioners._RESOURCE_HANDLERS[kind.name] = {"create": create, "update": update, "delete": kind.delete}
    provisioners._REPLACING_PROPERTIES[kind.name] = kind.replaced_by
    if kind.name_property:
        # CloudFormation refuses to replace a resource whose name the template gives and keeps.
        provisioners._CUSTOM_NAME_REPLACEMENT[kind.name] = {"name": kind.name_property}
    if kind.tagged:
        provisioners._STACK_TAG_PROPERTY[kind.name] = ("Tags", "list")
    if kind.waits:
        _waiting.add(kind.name)


def install() -> None:
    """Run types that wait on threads of their own: MiniStack has a fixed list of those that do."""
    known = stacks._runs_on_worker_thread

    def runs_on_worker_thread(resource_type: str) -> bool:
        return resource_type in _waiting or bool(known(resource_type))

    stacks._runs_on_worker_thread = runs_on_worker_thread


def on_server_loop(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of `function`, called on the server's event loop; from there or from any other thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return function(*arguments)

    async def call() -> Result:
        return function(*arguments)

    return asyncio.run_coroutine_threadsafe(call(), app._MAIN_LOOP).result()


def call_service(service: JsonService, operation: str, properties: Json) -> Json:
    """Call an operation of one of our services with template properties, typed as the operation wants."""
    shape = service.model.operation_model(operation).input_shape
    return on_server_loop(service.call, operation, coerce(shape, properties) if shape else properties)


def coerce(shape: botocore.model.Shape, value: Any) -> Any:
    """Template values may be strings where the API has numbers and booleans, and the other way round."""
    if value is None:
        return None
    if isinstance(shape, botocore.model.StructureShape) and isinstance(value, dict):
        return {
            name: coerce(shape.members[name], item) if name in shape.members else item
            for name, item in value.items()
            if item is not None
        }
    if isinstance(shape, botocore.model.ListShape) and isinstance(value, list):
        return [coerce(shape.member, item) for item in value]
    if isinstance(shape, botocore.model.MapShape) and isinstance(value, dict):
        return {key: coerce(shape.value, item) for key, item in value.items()}
    return _scalar(shape.type_name, value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "string" and isinstance(value, bool):
        return str(value).lower()
    if kind == "string" and isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return value
    try:
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
    except ValueError:
        return value
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
