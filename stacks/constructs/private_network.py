"""The private network, as the stacks that run models inside it see it."""

from dataclasses import dataclass

from stacks.base import PlatformStack


@dataclass(frozen=True)
class PrivateNetwork:
    """Ids of the network stack's isolated subnets, one per zone, and of the models' security group."""

    subnet_ids: list[str]
    security_group_id: str

    @classmethod
    def of(cls, stack: PlatformStack) -> "PrivateNetwork":
        """The environment's network; its ids are read from parameters when `stack` is deployed."""
        return cls(
            subnet_ids=[
                stack.shared(f"network/subnets/{zone}")
                for zone in stack.environment_config.availability_zones
            ],
            security_group_id=stack.shared("network/security-group-id"),
        )
