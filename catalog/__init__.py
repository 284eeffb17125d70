"""The catalog: what a team writes in YAML, as typed, checked and documented values.

`models/<name>/model.yaml` is a `ModelSpec`, `config/<env>.yaml` an `Environment`. Stacks and the command line
read both through `load_platform`; nothing else in the repository parses YAML.
"""

from catalog.callers import Client
from catalog.environment import ContainerImage, Environment
from catalog.errors import CatalogError, Problem
from catalog.loader import (
    Platform,
    load_accepted_changes,
    load_catalog,
    load_environment,
    load_model,
    load_platform,
)
from catalog.model import CpuModel, GpuModel, ModelSpec

__all__ = [
    "CatalogError",
    "Client",
    "ContainerImage",
    "CpuModel",
    "Environment",
    "GpuModel",
    "ModelSpec",
    "Platform",
    "Problem",
    "load_accepted_changes",
    "load_catalog",
    "load_environment",
    "load_model",
    "load_platform",
]
