"""An embedded AWS of these tests' own: a free port, a folder, and containers that do as they are told."""

from __future__ import annotations

import contextlib
import io
import json
import textwrap
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

import local_aws
from local_aws import State, processes

CONTAINERS = Path(__file__).parent / "containers"
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/inference-probe:local"
TRUST_SAGEMAKER = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": "000000000000"}},
        }
    ],
}
BUCKET = "models"
# What an execution role needs besides its model data:
# docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
OPERATE = (
    {
        "Effect": "Allow",
        "Action": [
            "ecr:GetAuthorizationToken",
            "ecr:BatchCheckLayerAvailability",
            "ecr:BatchGetImage",
            "ecr:GetDownloadUrlForLayer",
            "logs:CreateLogGroup",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "cloudwatch:PutMetricData",
        ],
        "Resource": "*",
    },
)


@dataclass
class Embedded:
    """A running server and what tests need to talk to it."""

    state: State
    home: Path
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str, key: dict[str, str] | None = None) -> Any:
        """A boto3 client; with `key` (AccessKeyId, SecretAccessKey), else as the account's root."""
        if key is None and service not in self._clients:
            self._clients[service] = self._client(service)
        return self._client(service, key) if key else self._clients[service]

    def _client(self, service: str, key: dict[str, str] | None = None) -> Any:
        key = key or {
            "AccessKeyId": self.state.access_key_id,
            "SecretAccessKey": self.state.secret_access_key,
        }
        return boto3.session.Session(
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
            aws_session_token=key.get("SessionToken"),
            region_name=self.state.region,
        ).client(
            service,
            endpoint_url=self.state.endpoint,
            verify=self.state.ca_bundle,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=90),
        )

    def user(self, *statements: dict[str, Any]) -> dict[str, str]:
        """The access key of a new user who may do what `statements` say."""
        iam, name = self.client("iam"), unique("user")
        iam.create_user(UserName=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
        key: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
        return key

    def role(self, *statements: dict[str, Any], trust: dict[str, Any] = TRUST_SAGEMAKER) -> str:
        """The ARN of a new role with these rights."""
        iam, name = self.client("iam"), unique("role")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        if statements:
            policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
            iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=policy)
        arn: str = role["Arn"]
        return arn

    def function(self, role: str, source: str, **configuration: Any) -> str:
        """The name of a new function whose `handler` is in this Python source."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("index.py", textwrap.dedent(source))
        name = unique("function")
        self.client("lambda").create_function(
            FunctionName=name,
            Role=role,
            Runtime="python3.13",
            Handler="index.handler",
            Timeout=30,
            Code={"ZipFile": archive.getvalue()},
            **configuration,
        )
        return name

    def invoke(self, function: str) -> Any:
        """What a function returned, or its error."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=b"{}")
        return json.loads(answer["Payload"].read())

    def refused(self, role: str) -> set[str]:
        """The actions that IAM refused to a role, as the event history has them."""
        pages = self.client("cloudtrail").get_paginator("lookup_events").paginate()
        events = [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]
        return {
            f"{event['eventSource'].partition('.')[0]}:{event['eventName']}"
            for event in events
            if event.get("errorCode") == "AccessDenied"
            and event["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("arn") == role
        }

    def model(
        self, role: str, *, image: str = IMAGE, vpc: dict[str, Any] | None = None, **environment: str
    ) -> str:
        """The name of a new model of the probe container, its data under s3://models/probe/1/."""
        name = unique("model")
        source = {"S3Uri": f"s3://{BUCKET}/probe/1/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        self.client("sagemaker").create_model(
            ModelName=name,
            ExecutionRoleArn=role,
            PrimaryContainer={
                "Image": image,
                "Environment": environment,
                "ModelDataSource": {"S3DataSource": source},
            },
            **({"VpcConfig": vpc} if vpc else {}),
        )
        return name

    def config(self, model: str, *, timeout: int = 60, **variant: Any) -> str:
        """The name of a new endpoint configuration with one variant, AllTraffic."""
        name = unique("config")
        described = {
            "VariantName": "AllTraffic",
            "ModelName": model,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.g5.xlarge",
            "ContainerStartupHealthCheckTimeoutInSeconds": timeout,
            **variant,
        }
        self.client("sagemaker").create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[described]
        )
        return name

    def endpoint(self, config: str, **more: Any) -> str:
        """The name of a new endpoint, not waited for."""
        name = unique("endpoint")
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=config, **more)
        return name

    def settled(self, endpoint: str) -> dict[str, Any]:
        """DescribeEndpoint's answer once nothing is in progress."""
        sagemaker = self.client("sagemaker")

        def done() -> Any:
            described = sagemaker.describe_endpoint(EndpointName=endpoint)
            return described if described["EndpointStatus"] in ("InService", "Failed") else None

        found: dict[str, Any] = until(done)
        return found

    def ask(self, endpoint: str, wish: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """What the probe saw of an invocation."""
        answer = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=endpoint, Body=json.dumps(wish or {}), ContentType="application/json", **more
        )
        seen: dict[str, Any] = json.loads(answer["Body"].read())
        return seen

    def deploy(self, stack: str, template: dict[str, Any]) -> dict[str, Any]:
        """The stack as it is once a template has been created or updated, or has been rolled back."""
        cloudformation = self.client("cloudformation")
        stacks = {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]}
        act = cloudformation.update_stack if stack in stacks else cloudformation.create_stack
        act(StackName=stack, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"])
        return self.stable(stack)

    def stable(self, stack: str) -> dict[str, Any]:
        def done() -> Any:
            described = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
            return None if described["StackStatus"].endswith("_IN_PROGRESS") else described

        found: dict[str, Any] = until(done)
        return found

    def delete(self, stack: str) -> None:
        cloudformation = self.client("cloudformation")
        cloudformation.delete_stack(StackName=stack)
        until(lambda: stack not in {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]})

    def failures(self, stack: str) -> dict[str, str]:
        """Reasons by logical id of what failed."""
        events = self.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"]
        return {
            event["LogicalResourceId"]: event.get("ResourceStatusReason", "")
            for event in events
            if event["ResourceStatus"].endswith("_FAILED")
        }


@contextlib.contextmanager
def running(home: Path, **environment: str) -> Iterator[Embedded]:
    """A started server with the probe container, stopped at the end with nothing left of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_AWS_CONTAINERS", str(CONTAINERS))
        for name, value in environment.items():
            patch.setenv(name, value)
        state = local_aws.start(0, home=home)
    try:
        yield Embedded(state, home)
    finally:
        local_aws.stop(home=home)
        assert processes.marked(home) == []


def until(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """What `condition` returns once it is true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError(f"not true within {timeout} s")


def allow(*actions: str, resource: str = "*", **condition: Any) -> dict[str, Any]:
    """A statement of a policy."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def trust(service: str) -> dict[str, Any]:
    """The policy of a role that a service may assume."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
