"""Giving a role to a service takes `iam:PassRole` on it, of whoever gives it.

docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html. What
CloudFormation makes, as whoever called it or as a role that was passed to it, is not checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qs

from ministack.core import iam_actions

from local_aws.authorization import Request, Right, takes_also
from local_aws.wire import Json

# MiniStack's service -> action -> where its requests name a role, and the service that gets it. A name that
# ends in [] is that of a list.
PASSED: dict[str, dict[str, tuple[str, str]]] = {
    "lambda": {
        "lambda:CreateFunction": ("Role", "lambda.amazonaws.com"),
        "lambda:UpdateFunctionConfiguration": ("Role", "lambda.amazonaws.com"),
    },
    "sagemaker": {
        f"sagemaker:Create{kind}": ("ExecutionRoleArn", "sagemaker.amazonaws.com")
        for kind in ("Model", "EndpointConfig")
    },
    "events": {
        "events:PutRule": ("RoleArn", "events.amazonaws.com"),
        "events:PutTargets": ("Targets[].RoleArn", "events.amazonaws.com"),
    },
    "scheduler": {
        "scheduler:CreateSchedule": ("Target.RoleArn", "scheduler.amazonaws.com"),
        "scheduler:UpdateSchedule": ("Target.RoleArn", "scheduler.amazonaws.com"),
    },
    "states": {
        "states:CreateStateMachine": ("roleArn", "states.amazonaws.com"),
        "states:UpdateStateMachine": ("roleArn", "states.amazonaws.com"),
    },
    "cloudtrail": {
        "cloudtrail:CreateTrail": ("CloudWatchLogsRoleArn", "cloudtrail.amazonaws.com"),
        "cloudtrail:UpdateTrail": ("CloudWatchLogsRoleArn", "cloudtrail.amazonaws.com"),
    },
    "cloudformation": {
        f"cloudformation:{action}": ("RoleARN", "cloudformation.amazonaws.com")
        for action in ("CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet")
    },
}


def install() -> None:
    for service in PASSED:
        takes_also(service, partial(_rights, service))


def _rights(service: str, request: Request) -> Iterator[Right]:
    form = parse_qs(request.body.decode("utf-8", "replace")) if service == "cloudformation" else {}
    query = {**form, **request.query}
    action = iam_actions.extract_iam_action(
        service, request.method, request.path, request.headers, request.body, query
    )
    if action not in PASSED[service]:
        return
    path, principal = PASSED[service][action]
    parameters = {name: values[0] for name, values in query.items()} if form else request.json()
    for role in _values(parameters, path.split(".")):
        yield Right("iam:PassRole", role, {"iam:PassedToService": principal})


def _values(value: Json, path: list[str]) -> Iterator[str]:
    name, rest = path[0], path[1:]
    found = value.get(name.removesuffix("[]"))
    for one in found or [] if name.endswith("[]") else [found]:
        if rest and isinstance(one, dict):
            yield from _values(one, rest)
        elif not rest and isinstance(one, str) and one:
            yield one
