"""The names by which the tests of this folder know an assembly, and what a stack by itself needs."""

import pytest

from app import ROOT
from catalog.environment import Environment
from catalog.loader import load_environment
from tests.assembly import NAG_PACKS, Assembly, Resource, assemble

__all__ = ["NAG_PACKS", "Assembly", "Resource", "assemble"]


@pytest.fixture
def dev_environment() -> Environment:
    """What `config/dev.yaml` says, for a stack by itself."""
    return load_environment(ROOT / "config", "dev")
