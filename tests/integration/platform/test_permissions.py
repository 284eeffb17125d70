"""The roles that the templates make have the rights that every path needs, and on the request path no other.

IAM is enforced on what callers do and on what AWS does as a role (docs/embedded-aws.md#iam). Both tests list
roles, policies, statements and actions from IAM: what nobody thought of fails by name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app import ROOT
from catalog.loader import load_platform
from catalog.model import ModelSpec
from catalog.names import Names
from tests.integration.local_aws.embedded import until
from tests.integration.platform import releasing, rights
from tests.integration.platform.conftest import Platform
from tests.integration.platform.rights import EndpointCopy, FunctionCopy, Right

ONLY_ON_AWS = {
    "inference-local-network-VpcFlowsIAMRole": "Writes VPC flow logs: no packet flows on the embedded AWS.",
}
"""Beginnings of the names of roles that no path uses here -> why only AWS can show that they are needed."""

UNSEEN = {
    "xray:PutTelemetryRecords": "The daemon reports on itself, to X-Ray's operators: nobody can read it.",
}
"""Rights whose use shows in the refusal alone, since nothing that we can see depends on it -> why."""


@pytest.fixture(scope="module")
def models() -> list[ModelSpec]:
    return load_platform(ROOT, "local").models


def sample(model: ModelSpec) -> bytes:
    return (ROOT / "models" / model.name / "sample.json").read_bytes()


def request_everything(platform: Platform, models: list[ModelSpec]) -> dict[str, int]:
    """The status of every kind of request to every model."""
    answers = {
        path: platform.call("GET", path)
        for path in (
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models",
            *(f"/v2/models/{model.name}{rest}" for model in models for rest in ("", "/ready")),
        )
    }
    answers |= {f"infer {model.name}": platform.infer(model.name, sample(model)) for model in models}
    return {name: answer.status_code for name, answer in answers.items()}


def operate(platform: Platform) -> None:
    """What operators do: look, take a token, prune, read the audit trail."""
    for command in (
        ["status"],
        ["models"],
        ["token"],
        ["prune", "--yes", "--assembly", str(platform.home / "assembly")],
    ):
        done = platform.inferctl(*command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert platform.aws("cloudtrail").lookup_events()["Events"]


def change_a_model(platform: Platform, model: ModelSpec) -> None:
    """Deploy a change of a model's stack, and change it back."""
    cloudformation, stack = (
        platform.aws("cloudformation"),
        f"inference-local-model-{model.name}-{model.target}",
    )
    template = cloudformation.get_template(StackName=stack)["TemplateBody"]
    document = template if isinstance(template, dict) else json.loads(template)
    original = json.dumps(document)
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"]["Description"] = "changed"
    # By S3, as the CDK does: a request itself may hold 51,200 bytes of a template.
    s3, bucket = platform.aws("s3"), f"cdk-hnb659fds-assets-{platform.deployed.environment.account}-us-east-1"
    for body in (json.dumps(document), original):
        s3.put_object(Bucket=bucket, Key="changed.json", Body=body.encode())
        cloudformation.update_stack(
            StackName=stack,
            TemplateURL=f"https://s3.us-east-1.amazonaws.com/{bucket}/changed.json",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        )
        until(
            lambda: (
                cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
                == "UPDATE_COMPLETE"
            )
        )


def try_versions(platform: Platform, models: list[ModelSpec]) -> None:
    """Let each model's validator look at an upload that is not there."""
    names = Names("local")
    bucket = names.bucket("models", "000000000000", "us-east-1")
    for model in models:
        event = {
            "model": model.name,
            "version": "9.9.9",
            "sha256": "0" * 64,
            "location": f"s3://{bucket}/incoming/{model.name}/9.9.9/",
        }
        answer = platform.aws("lambda").invoke(
            FunctionName=names.validator(model.name, model.home), Payload=json.dumps(event)
        )
        assert json.loads(answer["Payload"].read())["errorMessage"].endswith("there is no such file")


def release_what_is_live(platform: Platform, model: str) -> None:
    """A release that is refused for serving already, and a look at the predictions of no requests."""
    sha256 = releasing.live(platform, model)
    release = releasing.ended(platform, model, releasing.start(platform, model, "1.0.0", sha256))
    assert (release.status, "is live already" in release.reason) == ("REFUSED", True), release
    [compare] = [
        function["FunctionName"]
        for page in platform.aws("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
        if function["FunctionName"].startswith("inference-local-releases-Compare")
    ]
    event = {
        "prefix": "captures/none/",
        "model": model,
        "old": sha256,
        "new": sha256,
        "since": datetime.now(UTC).isoformat(),
        "minimum": 1,
        "psi": 0.25,
    }
    answer = platform.aws("lambda").invoke(FunctionName=compare, Payload=json.dumps(event))
    assert "FunctionError" not in answer


def run_what_is_scheduled(platform: Platform) -> None:
    """Start every function that a rule starts, with its input or an event of the schedule's form."""
    events = platform.aws("events")
    for rule in events.list_rules()["Rules"]:
        for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
            if f":function:{rights.PREFIX}" in target["Arn"]:
                event = target.get("Input") or json.dumps(
                    {
                        "source": "aws.events",
                        "detail-type": "Scheduled Event",
                        "resources": [rule["Arn"]],
                        "detail": {},
                    }
                )
                platform.aws("lambda").invoke(FunctionName=target["Arn"], Payload=event)


def raise_an_alarm(platform: Platform) -> None:
    """Put every alarm that notifies somebody into ALARM, and back."""
    cloudwatch = platform.aws("cloudwatch")
    described = cloudwatch.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    for alarm in [*described["MetricAlarms"], *described["CompositeAlarms"]]:
        if alarm["AlarmActions"]:
            for state in ("ALARM", alarm["StateValue"]):
                cloudwatch.set_alarm_state(
                    AlarmName=alarm["AlarmName"], StateValue=state, StateReason="A test of the notification."
                )


def test_every_path_is_allowed_and_every_role_is_used(platform: Platform, models: list[ModelSpec]) -> None:
    began = time.time()
    statuses = request_everything(platform, models)
    assert set(statuses.values()) == {200}, statuses
    operate(platform)
    try_versions(platform, models)
    release_what_is_live(platform, "wine-cultivar")
    change_a_model(platform, next(model for model in models if model.target == "cpu"))
    run_what_is_scheduled(platform)
    raise_an_alarm(platform)

    during = [*rights.refusals(platform, 0, platform.deployed_at), *rights.refusals(platform, began)]
    assert [record["errorMessage"] for record in during] == []

    names = rights.roles(platform)
    unused = {name for name in names if not rights.used_since(platform, name, 0)}
    declared = {name for name in names for prefix in ONLY_ON_AWS if name.startswith(prefix)}
    assert unused == declared, "roles that nothing uses, or that are used though declared otherwise"
    assert all(any(name.startswith(prefix) for name in names) for prefix in ONLY_ON_AWS), (
        "a stale declaration"
    )


# No unused right


def on_the_request_path(platform: Platform, models: list[ModelSpec]) -> list[str]:
    """The roles that IAM says were used by requests."""
    # IAM keeps the second only.
    time.sleep(1 - time.time() % 1)
    began = time.time()
    request_everything(platform, models)
    return [name for name in rights.roles(platform) if rights.used_since(platform, name, began)]


@contextmanager
def taken_from(platform: Platform, right: Right) -> Iterator[float]:
    """Take a right from a role of the platform for a while; gives since when."""
    iam, document = platform.aws("iam"), rights.policies(platform, right.role)[right.policy]

    def put(changed: dict[str, Any]) -> None:
        iam.put_role_policy(RoleName=right.role, PolicyName=right.policy, PolicyDocument=json.dumps(changed))

    put(rights.without(document, right))
    try:
        yield time.time()
    finally:
        put(document)


def unused_by_api_gateway(platform: Platform, role: str, models: list[ModelSpec]) -> list[Right]:
    """The rights of an integration's role without which every request is answered as before."""
    unused = []
    for right in rights.rights(platform, role):
        with taken_from(platform, right) as since:
            failed = set(request_everything(platform, models).values()) != {200}
            if not failed or right.action not in rights.refused(platform, role, since):
                unused.append(right)
    return unused


def events_for(function: FunctionCopy, models: list[ModelSpec]) -> list[dict[str, Any]]:
    """Proxy events that use all that a function of the request path does."""
    name = function.config["Environment"]["Variables"].get("MODEL_NAME")
    context = {"requestContext": {"requestId": "test"}, "headers": {"content-type": "application/json"}}
    for model in models:
        if model.name == name:
            infer = {"httpMethod": "POST", "path": f"/v2/models/{name}/infer", "body": sample(model).decode()}
            return [{**context, **infer}]
    assert "LIVE_PATH" in function.config["Environment"]["Variables"], (
        f"no event is known for {function.name}"
    )
    return [
        {**context, "httpMethod": "GET", "path": path, "resource": path}
        for path in ("/v2/models", "/v2/health/ready")
    ]


def unused_by_a_function(platform: Platform, name: str, models: list[ModelSpec], cache: Path) -> list[Right]:
    """The rights without which a function is made, starts, answers and leaves behind all that it does with
    them.
    """
    with closing_copy(FunctionCopy(platform, name, cache)) as function:
        events = events_for(function, models)
        whole = function.observe(events)
        assert (set(whole["answers"]), whole["logged"], whole["traced"]) == ({200}, True, True), whole

        healthy = True

        def is_used(right: Right) -> bool:
            nonlocal healthy
            since = function.take(right)
            # Most rights are asked for in every request, some only when the function is made or starts.
            seen = function.observe(events, right, since) if healthy else whole
            if right.action not in function.refused(since):
                if function.restart():
                    return right.action in function.refused(since)
                seen = function.observe(events, right, since)
                healthy = seen["answers"] == whole["answers"]
            return right.action in function.refused(since) and (seen != whole or right.action in UNSEEN)

        rights_of_it = rights.rights(platform, function.config["Role"].rpartition("/")[2])
        return [right for right in rights_of_it if not is_used(right)]


@contextmanager
def closing_copy(copy: Any) -> Iterator[Any]:
    try:
        yield copy
    finally:
        copy.delete()


RUNNING = ("logs:", "cloudwatch:")
"""Actions of an endpoint's role that are used when it runs; without any other it is not even made."""


def unused_by_an_endpoint(platform: Platform, name: str, role: str, model: ModelSpec) -> list[Right]:
    """The rights without which an endpoint comes up, answers, logs, measures and captures as with them."""
    everything = rights.rights(platform, role)
    captures = [right for right in everything if right.sid in ("WriteCaptures", "EncryptCaptures")]
    running = [right for right in everything if right.action.startswith(RUNNING)]
    making = [right for right in everything if right not in [*captures, *running]]

    def without_it(right: Right) -> Right | None:
        """An endpoint that lacks a right fails before a container is started, so all of them run at once."""
        with closing_copy(EndpointCopy(platform, name, right)) as endpoint:
            failed = endpoint.settled()["EndpointStatus"] == "Failed"
            return None if failed and right.action in endpoint.refused(endpoint.since) else right

    with ThreadPoolExecutor(4) as pool:
        unused = [right for right in pool.map(without_it, making) if right]
    return unused + unused_by_a_running_endpoint(platform, name, running, captures, model)


def unused_by_a_running_endpoint(
    platform: Platform, name: str, running: list[Right], captures: list[Right], model: ModelSpec
) -> list[Right]:
    by_action = {right.action: right for right in running}
    steps = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "cloudwatch:PutMetricData")
    unknown = [right for right in running if right.action not in steps]
    group, stream, events, metrics = (by_action[action] for action in steps)
    # The log group is not there yet, as after somebody deleted it.
    with closing_copy(EndpointCopy(platform, name, group, metrics)) as endpoint:
        assert endpoint.settled()["EndpointStatus"] == "InService"
        proven = []

        def invoke_without(*missing: Right) -> None:
            since = endpoint.take(*missing)
            endpoint.invoke(sample(model))
            until(lambda: {right.action for right in missing} <= endpoint.refused(since))

        until(lambda: metrics.action in endpoint.refused(endpoint.since))
        if not endpoint.measured():
            proven.append(metrics)
        invoke_without(group)
        if endpoint.streams() is None:
            proven.append(group)
        invoke_without(stream)
        if endpoint.streams() == 0:
            proven.append(stream)
        invoke_without(events)
        if endpoint.lines() == 0:
            proven.append(events)
        for right in captures:
            endpoint.take(right)
            # Those of earlier invocations are written once they can be, which is not now.
            written = endpoint.captures()
            invoke_without(right)
            if endpoint.captures() == written:
                proven.append(right)
        written = endpoint.captures()
        endpoint.take()
        endpoint.invoke(sample(model))
        until(lambda: endpoint.lines() > 0)
        if captures:
            until(lambda: endpoint.captures() > written)
    return unknown + [right for right in [*running, *captures] if right not in [*proven, *unknown]]


def test_no_right_on_the_request_path_is_unused(
    platform: Platform, models: list[ModelSpec], tmp_path: Path
) -> None:
    functions = {
        function["Role"].rpartition("/")[2]: function["FunctionName"]
        for page in platform.aws("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
    }
    endpoints = {}
    for model in models:
        if model.target == "gpu":
            name = f"{rights.PREFIX}{model.name}"
            sagemaker = platform.aws("sagemaker")
            config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
            [variant] = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
            described = sagemaker.describe_model(ModelName=variant["ModelName"])
            endpoints[described["ExecutionRoleArn"].rpartition("/")[2]] = (name, model)

    def unused(role: str) -> list[Right]:
        if role in functions:
            return unused_by_a_function(platform, functions[role], models, tmp_path)
        if role in endpoints:
            return unused_by_an_endpoint(platform, endpoints[role][0], role, endpoints[role][1])
        return unused_by_api_gateway(platform, role, models)

    # All but API Gateway's are tried on copies: none is in another's way, and most of the time is waiting.
    with ThreadPoolExecutor(4) as pool:
        found = [
            right for rights_ in pool.map(unused, on_the_request_path(platform, models)) for right in rights_
        ]
    assert [str(right) for right in found] == []
