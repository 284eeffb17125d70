"""What differs between two sets of templates, resource by resource, as CloudFormation would carry it out."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from inferctl.review.templates import Templates

Action = Literal["add", "remove", "replace", "modify"]
PropertyPath = tuple[str, ...]
"""From a resource's properties to a value; list positions are numbers as text."""


@dataclass(frozen=True)
class Change:
    """One resource that is not as it was.

    Args:
        before: the resource as the old template has it, empty for a new one; `after` likewise.
        properties: what changed below its properties.
    """

    stack: str
    resource: str
    type: str
    action: Action
    before: Mapping[str, Any] = field(repr=False)
    after: Mapping[str, Any] = field(repr=False)
    properties: tuple[PropertyPath, ...] = ()


def changes(before: Templates, after: Templates) -> list[Change]:
    """Every change that leads from one to the other, by stack and logical id."""
    return [
        change
        for stack in sorted(before.keys() | after.keys())
        for old, new in [tuple(each.get(stack, {}).get("Resources", {}) for each in (before, after))]
        for resource in sorted(old.keys() | new.keys())
        if (change := _change(stack, resource, old.get(resource), new.get(resource)))
    ]


def _change(
    stack: str, resource: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> Change | None:
    if old == new:
        return None
    if old is None or new is None:
        present = new or old or {}
        return Change(stack, resource, present["Type"], "remove" if old else "add", old or {}, new or {})
    paths = tuple(_differences(old.get("Properties", {}), new.get("Properties", {})))
    replaced = old["Type"] != new["Type"] or any(
        _overlap(path, fixed) for path in paths for fixed in create_only(old["Type"])
    )
    return Change(stack, resource, old["Type"], "replace" if replaced else "modify", old, new, paths)


def _differences(old: Any, new: Any, path: PropertyPath = ()) -> Iterator[PropertyPath]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for position, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from _differences(left, right, (*path, str(position)))
    # JSON's true is not its 1.
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):
        yield path


def _overlap(changed: PropertyPath, fixed: PropertyPath) -> bool:
    """Whether what changed is, holds, or lies in a property that is fixed at creation."""
    return all(a == b or b == "*" for a, b in zip(changed, fixed, strict=False))


@cache
def create_only(type_: str) -> tuple[PropertyPath, ...]:
    """Properties that CloudFormation can only change by making the resource anew, or sometimes can only so.

    By the resource types' schemas, which cfn-lint carries. None for types without one, such as custom
    resources.
    """
    known = schema(type_)
    pointers = [*known.get("createOnlyProperties", ()), *known.get("conditionalCreateOnlyProperties", ())]
    return tuple(tuple(pointer.split("/")[2:]) for pointer in pointers)


@cache
def schema(type_: str) -> Mapping[str, Any]:
    """CloudFormation's schema of a resource type, as cfn-lint carries it; empty if there is none."""
    name = _schema_files().get(type_)
    if name is None:
        return {}
    found: dict[str, Any] = json.loads(
        (_schemas() / "resources" / f"{name}.json").read_text(encoding="utf-8")
    )
    return found


@cache
def _schema_files() -> dict[str, str]:
    names: dict[str, str] = json.loads(
        (_schemas() / "providers" / "us-east-1.json").read_text(encoding="utf-8")
    )
    return names


def _schemas() -> Path:
    # Found, not imported: importing cfn-lint takes seconds, and only its files are wanted.
    spec = importlib.util.find_spec("cfnlint")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / "schemas"
