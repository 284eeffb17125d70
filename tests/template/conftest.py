"""What a stack by itself needs."""

import pytest

from app import ROOT
from catalog.environment import Environment
from catalog.loader import load_environment


@pytest.fixture
def dev_environment() -> Environment:
    """What `config/dev.yaml` says, for a stack by itself."""
    return load_environment(ROOT / "config", "dev")
