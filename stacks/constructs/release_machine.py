"""The state machine of a release: the order of its steps, what is waited for, and where failures go.

The steps themselves are `lambda_src/release/`. Each may run again, so whatever fails is tried again, except
what a step decided: those errors are named below. A step that has to wait says for how long (`pause`), and is
asked again. All that fails after the model was locked goes through `Restore`, which makes what is live serve
again, and everything ends in `Conclude`.
"""

import json
from typing import Any

DECIDED = ["Refused", "Rejected", "Unverified", "Late"]
"""Errors that no other attempt would change (lambda_src/release/outcomes.py)."""

RETRY = [
    {"ErrorEquals": DECIDED, "MaxAttempts": 0},
    # Whatever else: a worker that died, a service that was busy.
    {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 2, "MaxAttempts": 4, "BackoffRate": 2},
]

State = dict[str, Any]


def definition(partition: str, release: str, store: str) -> str:
    """The definition in the Amazon States Language.

    Args:
        release: ARN of the function with the steps.
        store: ARN of the function that keeps what was validated.
    """

    def step(name: str, next_state: str, failed: str | None = "Restore", result: str = "error") -> Any:
        states = steps(partition, release, name, next_state)
        if failed:
            caught = {"ErrorEquals": ["States.ALL"], "ResultPath": f"$.{result}", "Next": failed}
            states[name]["Catch"] = [caught]
        return states

    return json.dumps(
        {
            "Comment": "Releases a version of a model, or brings back the one that was live",
            "StartAt": "Lock",
            "States": {
                # Before it holds the lock a release changes nothing, so there is nothing to restore.
                **step("Lock", "IsItNew", failed="Conclude"),
                "IsItNew": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.source", "StringEquals": "rollback", "Next": "Stage"}],
                    "Default": "Validate",
                },
                "Validate": ask(
                    partition,
                    {"FunctionName.$": "$.validator"},
                    "Store",
                    ResultSelector={"validated.$": "$.Payload"},
                    ResultPath="$.validation",
                ),
                "Store": ask(partition, {"FunctionName": store}, "Stage", ResultPath=None),
                **step("Stage", "Shift"),
                **step("Shift", "Judge"),
                **step("Judge", "Promote"),
                **step("Promote", "Verify"),
                **step("Verify", "Record"),
                **step("Record", "Conclude"),
                **step("Restore", "Conclude", failed="Conclude", result="restore_error"),
                **step("Conclude", "IsItLive", failed=None),
                "IsItLive": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.status", "StringEquals": "LIVE", "Next": "Live"}],
                    "Default": "NotReleased",
                },
                "Live": {"Type": "Succeed"},
                "NotReleased": {"Type": "Fail", "ErrorPath": "$.status", "CausePath": "$.reason"},
            },
        }
    )


def ask(partition: str, function: dict[str, str], next_state: str, **result: Any) -> State:
    """The state that lets a function look at the release: the model's own validator, or what stores it."""
    return {
        "Type": "Task",
        "Resource": f"arn:{partition}:states:::lambda:invoke",
        "Parameters": {**function, "Payload.$": "$"},
        **result,
        "Retry": RETRY,
        "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Restore"}],
        "Next": next_state,
    }


def steps(partition: str, function: str, name: str, next_state: str) -> dict[str, State]:
    """The states that let a function do one step, and again as long as it says for how long to wait."""
    return {
        name: {
            "Type": "Task",
            "Resource": f"arn:{partition}:states:::lambda:invoke",
            "Parameters": {
                "FunctionName": function,
                "Payload": {
                    "step": name.lower(),
                    "release.$": "$",
                    "execution.$": "$$.Execution.Id",
                    "queued_at.$": "$$.Execution.StartTime",
                },
            },
            "OutputPath": "$.Payload",
            "Retry": RETRY,
            "Next": f"{name}Done",
        },
        f"{name}Done": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.pause", "NumericGreaterThan": 0, "Next": f"{name}Waits"}],
            "Default": next_state,
        },
        f"{name}Waits": {"Type": "Wait", "SecondsPath": "$.pause", "Next": name},
    }
