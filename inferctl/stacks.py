"""The CloudFormation stacks of an environment: which there are, which the app no longer has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from catalog.names import ENVIRONMENT_TAG, Names
from inferctl.environment import Aws
from inferctl.errors import InferctlError
from inferctl.output import Board

POLL_SECONDS = 3
POLLS = 1200  # an hour: SageMaker endpoints and VPC interfaces go slowly


@dataclass(frozen=True)
class Stack:
    """A deployed stack that carries the environment's tag."""

    name: str
    arn: str
    status: str
    created: datetime
    protected: bool

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "name": self.name,
            "status": self.status,
            "created": self.created.isoformat(),
            "protected": self.protected,
        }


def deployed(aws: Aws, environment: str) -> list[Stack]:
    """The environment's stacks, oldest first; what others have in the account is invisible here."""
    pages = aws.client("cloudformation").get_paginator("describe_stacks").paginate()
    found = [
        Stack(
            described["StackName"],
            described["StackId"],
            described["StackStatus"],
            described["CreationTime"],
            described.get("EnableTerminationProtection", False),
        )
        for page in pages
        for described in page["Stacks"]
        if _belongs(described, environment)
    ]
    return sorted(found, key=lambda stack: (stack.created, stack.name))


def _belongs(described: dict[str, Any], environment: str) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
    return (
        tags.get(ENVIRONMENT_TAG) == environment
        and described["StackName"].startswith(Names(environment).prefix + "-")
        # A nested stack has its parent's tags, and goes with its parent.
        and "ParentId" not in described
        and described["StackStatus"] not in ("DELETE_COMPLETE", "REVIEW_IN_PROGRESS")
    )


def orphans(found: Sequence[Stack], assembly: Sequence[str]) -> list[Stack]:
    """Stacks that the assembly no longer has, in the order of deletion.

    What was created later may need what was created earlier, never the other way: the latest goes first.
    Raises InferctlError for an assembly without any stack: then everything would be an orphan.
    """
    if not assembly:
        raise InferctlError("The assembly has no stacks; pruning would delete the whole environment.")
    return [stack for stack in reversed(found) if stack.name not in set(assembly)]


def delete(aws: Aws, doomed: Sequence[Stack], board: Board) -> None:
    """Delete stacks one after another. Raises botocore's WaiterError when one does not go."""
    client = aws.client("cloudformation")
    for stack in doomed:
        with board.step(stack.name):
            if stack.protected:
                client.update_termination_protection(StackName=stack.name, EnableTerminationProtection=False)
            client.delete_stack(StackName=stack.arn)
            client.get_waiter("stack_delete_complete").wait(
                StackName=stack.arn, WaiterConfig={"Delay": POLL_SECONDS, "MaxAttempts": POLLS}
            )
