"""What Step Functions does as a state machine's role: invoke functions.

docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html (IAM policies). MiniStack asks nobody.
"""

from __future__ import annotations

import contextvars
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import lambda_svc, stepfunctions

from local_aws import roles
from local_aws.wire import Json

PRINCIPAL = "states.amazonaws.com"

_role: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("role")
"""The role of the state machine whose task is under way, and the execution's name."""


def install() -> None:
    execute, call = stepfunctions._execute_task, stepfunctions._call_lambda

    def execute_task(state: Json, given: Any, execution: Json, context: Json) -> Any:
        machine = stepfunctions._state_machines.get(execution["stateMachineArn"]) or {}
        token = _role.set((machine.get("roleArn", ""), execution.get("name", "execution")))
        try:
            return execute(state, given, execution, context)
        finally:
            _role.reset(token)

    def call_lambda(function: str, event: Any) -> Any:
        role, session = _role.get()
        _, config, _ = lambda_svc._get_func_record_for_ref(function)
        if config:
            _check(role, session, config["FunctionArn"])
        return call(function, event)

    stepfunctions._execute_task, stepfunctions._call_lambda = execute_task, call_lambda


def _check(role: str, session: str, function_arn: str) -> None:
    try:
        roles.check_trust(get_account_id(), role, PRINCIPAL)
    except roles.NotAssumable as error:
        raise stepfunctions._ExecutionError("States.Runtime", str(error)) from error
    refused = roles.refusal(role, session, "lambda:InvokeFunction", function_arn)
    if refused:
        raise stepfunctions._ExecutionError("Lambda.AccessDeniedException", refused)
