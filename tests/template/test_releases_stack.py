"""Releases: what the state machine does in which order, and what its function may change."""

import json
from typing import Any

from tests.assembly import Assembly


def machine(assembly: Assembly) -> dict[str, Any]:
    stack = f"inference-{assembly.environment}-releases"
    body = assembly.one("AWS::StepFunctions::StateMachine", stack).properties["DefinitionString"]
    parts = body["Fn::Join"][1]
    document: dict[str, Any] = json.loads("".join(part if isinstance(part, str) else "arn" for part in parts))
    return document


def test_a_release_goes_through_its_steps_in_order_and_waits_where_they_say_so(dev: Assembly) -> None:
    states = machine(dev)["States"]
    state, path = machine(dev)["StartAt"], []
    while state != "IsItLive":
        found = states[state]
        if found["Type"] == "Task":
            path.append(state)
        for choice in found.get("Choices", ()):
            if choice.get("Variable") == "$.pause":
                assert states[choice["Next"]]["Next"] == path[-1]
        state = found["Default"] if found["Type"] == "Choice" else found["Next"]
    ours = ["Lock", "Validate", "Stage", "Shift", "Judge", "Promote", "Verify", "Record", "Conclude"]
    assert [name for name in path if name in ours] == ours


def test_a_rollback_is_tried_by_nobody(dev: Assembly) -> None:
    [choice] = machine(dev)["States"]["IsItNew"]["Choices"]
    assert choice == {"Variable": "$.source", "StringEquals": "rollback", "Next": "Stage"}


def test_whatever_fails_once_the_model_is_locked_brings_back_what_is_live(dev: Assembly) -> None:
    states = machine(dev)["States"]
    for name, state in states.items():
        if state["Type"] == "Task" and name not in ("Lock", "Restore", "Conclude"):
            assert [caught["Next"] for caught in state["Catch"]] == ["Restore"], name
    assert [states[name]["Catch"][0]["Next"] for name in ("Lock", "Restore")] == ["Conclude", "Conclude"]


def test_it_changes_neither_code_nor_roles_and_deletes_no_function(assembly: Assembly) -> None:
    stack, changed = f"inference-{assembly.environment}-releases", False
    for policy in assembly.resources("AWS::IAM::Policy"):
        if policy.stack != stack:
            continue
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert "lambda:UpdateFunctionCode" not in actions
            if "iam:PassRole" in actions:
                assert statement["Condition"] == {
                    "StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}
                }
            if "lambda:DeleteFunction" in actions:
                changed = True
                resource = json.dumps(statement["Resource"])
                assert f"function:inference-{assembly.environment}-*:*" in resource
    assert changed
