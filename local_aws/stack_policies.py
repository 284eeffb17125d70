"""A stack's policy, which refuses updates of its resources; MiniStack keeps it and does not look at it.

docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/protect-stack-resources.html: a refused resource fails,
and the stack rolls back. Here a policy allows everything or refuses everything.
"""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any

from ministack.services import cloudformation
from ministack.services.cloudformation import stacks

from local_aws.patches import replace_everywhere
from local_aws.wire import Json

_stack: ContextVar[str] = ContextVar("stack")
"""The stack that is being deployed."""


def install() -> None:
    deploy, refuse = stacks._deploy_stack_async, stacks._custom_named_replacement_error

    async def deploy_stack(stack_name: str, *arguments: Any, **options: Any) -> Any:
        token = _stack.set(stack_name)
        try:
            return await deploy(stack_name, *arguments, **options)
        finally:
            _stack.reset(token)

    # MiniStack asks this of each resource that an update finds, before it touches it.
    def refusal(resource_type: str, before: Json, after: Json) -> Any:
        if before != after and _refuses(_stack.get()):
            raise ValueError("Action denied by stack policy: Statement [#1] does not allow [Update:Modify]")
        return refuse(resource_type, before, after)

    replace_everywhere(deploy, deploy_stack)
    stacks._custom_named_replacement_error = refusal


def _refuses(stack: str) -> bool:
    policy = (cloudformation._stacks.get(stack) or {}).get("_stack_policy")
    if not policy:
        return False
    effects = set()
    for statement in json.loads(policy)["Statement"]:
        if (statement.get("Action"), statement.get("Resource")) != ("Update:*", "*"):
            raise ValueError("The embedded AWS knows stack policies about Update:* of all resources only.")
        effects.add(statement["Effect"])
    return "Deny" in effects or "Allow" not in effects
