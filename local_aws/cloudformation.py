"""Adding a resource type to MiniStack's CloudFormation: its handlers, what replaces it, and its tags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ministack.services.cloudformation import provisioners, stacks

from local_aws.wire import Json

Created = tuple[str, Json]  # physical id (what Ref returns), attributes (what Fn::GetAtt returns)


@dataclass(frozen=True)
class ResourceType:
    """A type and how it is made, changed and deleted; a handler that raises fails it with its message.

    `create(name, properties)`: `name` is the value of `name_property`, else one CloudFormation generates.
    `update(physical_id, before, after)` is called only when none of `replaced_by` changed; a change of those
    makes a new resource and deletes the old one; None: every change does. Handlers run on threads of their
    own and may wait.
    """

    name: str
    create: Callable[[str, Json], Created]
    delete: Callable[[str, Json], None]
    properties: tuple[str, ...]
    replaced_by: tuple[str, ...]
    update: Callable[[str, Json, Json], Created]
    name_property: str | None = None
    longest_name: int = 63


_ours: set[str] = set()


def extend(
    name: str,
    *,
    check: Callable[[Json], None] = lambda properties: None,
    after: Callable[[str, Json], None] = lambda physical_id, properties: None,
) -> None:
    """Do more for a type that MiniStack makes: `check(properties)` before it is created or updated, which may
    raise, and `after(physical_id, properties)`.
    """
    known = provisioners._RESOURCE_HANDLERS[name]

    def create(logical_id: str, properties: Json, stack_name: str) -> Created:
        check(properties)
        created: Created = known["create"](logical_id, properties, stack_name)
        after(created[0], properties)
        return created

    def update(
        physical_id: str, before: Json, properties: Json, stack_name: str, *logical_id: str
    ) -> Created:
        check(properties)
        updated: Created = known["update"](physical_id, before, properties, stack_name, *logical_id)
        after(updated[0], properties)
        return updated

    provisioners._RESOURCE_HANDLERS[name] = {**known, "create": create, "update": update}


def register(kind: ResourceType) -> None:
    """Let templates use `kind`; a property that is not among its `properties` fails the resource."""

    def check(properties: Json) -> None:
        unknown = sorted(properties.keys() - set(kind.properties))
        if unknown:
            raise ValueError(f"The embedded AWS does not know {kind.name} properties {', '.join(unknown)}.")

    def create(logical_id: str, properties: Json, stack_name: str) -> Created:
        check(properties)
        given = properties.get(kind.name_property) if kind.name_property else None
        generated = provisioners._physical_name(stack_name, logical_id, max_len=kind.longest_name)
        return kind.create(given or generated, properties)

    def update(physical_id: str, before: Json, after: Json, stack_name: str) -> Created:
        check(after)
        return kind.update(physical_id, before, after)

    provisioners._RESOURCE_HANDLERS[kind.name] = {"create": create, "update": update, "delete": kind.delete}
    provisioners._REPLACING_PROPERTIES[kind.name] = kind.replaced_by
    if kind.name_property:
        # CloudFormation refuses to replace a resource whose name the template gives and keeps.
        provisioners._CUSTOM_NAME_REPLACEMENT[kind.name] = {"name": kind.name_property}
    if "Tags" in kind.properties:
        provisioners._STACK_TAG_PROPERTY[kind.name] = ("Tags", "list")
    _ours.add(kind.name)


def install() -> None:
    """Run our types on threads of their own: MiniStack has a fixed list of those that may wait."""
    known = stacks._runs_on_worker_thread

    def runs_on_worker_thread(resource_type: str) -> bool:
        return resource_type in _ours or bool(known(resource_type))

    stacks._runs_on_worker_thread = runs_on_worker_thread
