"""The places where MiniStack itself is changed, each with its reason. Everything else uses its registries."""

from __future__ import annotations

from local_aws.state import Home


def install(home: Home) -> None:
    """Apply every patch."""
