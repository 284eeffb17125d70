"""docs/embedded-aws.md names what there is: a reader must not have to try."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local_aws import athena, autoscaler, autoscaling, resource_types
from local_aws.cloudformation import ResourceType
from local_aws.sagemaker import container, deployment, fleet
from local_aws.sagemaker.components import Components
from local_aws.sagemaker.control import Control
from local_aws.sagemaker.packages import Packages
from local_aws.state import HOME_VARIABLE, Home

PAGE = (Path(__file__).parents[3] / "docs" / "embedded-aws.md").read_text()


def documented_types() -> set[str]:
    """The types of the table's first column, whose later names leave out the service."""
    types = set()
    for row in re.findall(r"^\| ((?:AWS|Custom)::[^|]*) \|", PAGE, re.MULTILINE):
        service = ""
        for name in row.split(", "):
            service = name.rpartition("::")[0] if not name.startswith("::") else service
            types.add(name if not name.startswith("::") else service + name)
    return types


@pytest.mark.parametrize("module", [resource_types, autoscaling, athena])
def test_every_added_type_is_in_the_table(module: object) -> None:
    kinds = {kind.name for kind in vars(module).values() if isinstance(kind, ResourceType)}
    assert kinds
    assert kinds <= documented_types()


def test_every_served_operation_is_listed() -> None:
    home = Home.resolve()
    served = {
        *Control(home, lambda *endpoint: set(), lambda *endpoint: None).operations(),
        *Components(home).operations(),
        *Packages().operations(),
    }
    listed = set(re.findall(r"\b[A-Z]\w+", PAGE.partition("Operations:")[2].partition("Any other")[0]))
    assert listed == {*served, "InvokeEndpoint"}


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        (HOME_VARIABLE, ".local"),
        (fleet.MAX_INSTANCES_VARIABLE, "1"),
        (deployment.MAX_WAIT_VARIABLE, f"{deployment.DEFAULT_MAX_WAIT:.0f}"),
        (autoscaler.MINUTE_VARIABLE, "60"),
        (container.CONTAINERS_VARIABLE, "inference_containers"),
    ],
)
def test_every_variable_is_listed_with_its_default(variable: str, default: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{variable}` |"))
    assert row.split("|")[2].strip().strip("`") == default
