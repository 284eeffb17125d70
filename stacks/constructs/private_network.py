"""The private network, as those who run inside it see it: models always, the control functions where
`network.private_control_plane` says so.

A function says what it calls by the IAM statements of its role, and from them follows which interface
endpoints the network has: no more, since each costs by the hour, and no fewer, since there is no other way
out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aws_cdk import aws_iam as iam

from stacks.base import PlatformStack

if TYPE_CHECKING:
    from stacks.network import NetworkStack

MODELS, CONTROL = "network", "network/control"
"""Where the ids of the two parts of the network are shared."""


@dataclass(frozen=True)
class PrivateNetwork:
    """Ids of the isolated subnets of one part of the network, one per zone, and of its security group."""

    subnet_ids: list[str]
    security_group_id: str

    @classmethod
    def of(cls, stack: PlatformStack, part: str = MODELS) -> "PrivateNetwork":
        """The part of the environment's network; its ids are read from parameters at deploy time."""
        return cls(
            subnet_ids=[
                stack.shared(f"{part}/subnets/{zone}") for zone in stack.environment_config.availability_zones
            ],
            security_group_id=stack.shared(f"{part}/security-group-id"),
        )

    @classmethod
    def for_control(
        cls, stack: PlatformStack, calls: Sequence[iam.PolicyStatement]
    ) -> "PrivateNetwork | None":
        """Where a control function of `stack` runs that makes these calls: None is outside the network."""
        if not stack.environment_config.network.private_control_plane:
            return None
        network = cast("NetworkStack", stack.node.root.node.find_child(stack.names.resource("network")))
        network.serve(calls)
        stack.add_stack_dependency(network)
        return cls.of(stack, CONTROL)
