"""Keeping deployments out while a release changes what they would change too: by the policy of the model's
stack, with which CloudFormation refuses an update before it touches a resource.
"""

import json
from typing import Any

import boto3
import history
from outcomes import NotYet
from settings import Settings

_EVERYTHING = {"Action": "Update:*", "Principal": "*", "Resource": "*"}
CLOSED = json.dumps({"Statement": [{"Effect": "Deny", **_EVERYTHING}]})
OPEN = json.dumps({"Statement": [{"Effect": "Allow", **_EVERYTHING}]})


def keep_out(settings: Settings) -> None:
    """Refuse updates of the model's stack from now on. Raises NotYet while one is under way."""
    cloudformation: Any = boto3.client("cloudformation")
    policy = cloudformation.get_stack_policy(StackName=settings.stack).get("StackPolicyBody")
    if policy != CLOSED:
        # A policy that somebody else has set comes back.
        history.remember(settings.model, policy=policy or OPEN)
        cloudformation.set_stack_policy(StackName=settings.stack, StackPolicyBody=CLOSED)
    [stack] = cloudformation.describe_stacks(StackName=settings.stack)["Stacks"]
    if stack["StackStatus"].endswith("_IN_PROGRESS"):
        raise NotYet(f"{settings.stack} is being deployed")


def let_in(settings: Settings) -> None:
    """Allow updates again."""
    policy = history.remembered(settings.model).get("policy")
    if policy:
        boto3.client("cloudformation").set_stack_policy(StackName=settings.stack, StackPolicyBody=policy)
