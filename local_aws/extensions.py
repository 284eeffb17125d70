"""Everything that is added to MiniStack, in the order it is added. Read this file to know what differs."""

from __future__ import annotations

from local_aws import cloudformation, patches, registry
from local_aws.sagemaker import install as sagemaker
from local_aws.state import Home


def install(home: Home) -> None:
    """Register our services and resource types, before the first request."""
    patches.install(home)
    registry.install()
    cloudformation.install()
    sagemaker.install(home, lambda account, region, endpoint: set())


async def shutdown() -> None:
    """End what our services started."""
    await sagemaker.shutdown()
