"""Roles of the deployed platform: what they may do, what was refused to them, and copies of their users."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform

PREFIX = "inference-local-"
METRICS = "/aws/sagemaker/Endpoints"


FOR_FAILURES = ("ReportFailures", "EncryptFailures")
"""Statements of each function that something starts, for when it fails: a test has `intake` use them."""


@dataclasses.dataclass(frozen=True)
class Right:
    """One action of one statement of a role's policy."""

    role: str
    policy: str
    statement: int
    sid: str
    action: str

    def __str__(self) -> str:
        return f"{self.action} ({self.sid}) of {self.role}"


def roles(platform: Platform) -> list[str]:
    """The names of the roles that the platform's stacks made."""
    pages = platform.aws("iam").get_paginator("list_roles").paginate()
    return [
        role["RoleName"] for page in pages for role in page["Roles"] if role["RoleName"].startswith(PREFIX)
    ]


def policies(platform: Platform, role: str) -> dict[str, dict[str, Any]]:
    """The role's own policies by name; managed ones, which AWS writes, are not ours to narrow."""
    iam = platform.aws("iam")
    return {
        name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
    }


def rights(platform: Platform, role: str) -> list[Right]:
    """Every action of every statement of the role."""
    return [
        Right(role, policy, number, statement.get("Sid", "-"), action)
        for policy, document in policies(platform, role).items()
        for number, statement in enumerate(document["Statement"])
        for action in _list(statement["Action"])
    ]


def without(document: dict[str, Any], *removed: Right) -> dict[str, Any]:
    """The policy less these rights; a statement of no action is gone."""
    statements = []
    for number, statement in enumerate(document["Statement"]):
        gone = {right.action for right in removed if right.statement == number}
        kept = [action for action in _list(statement["Action"]) if action not in gone]
        statements += [{**statement, "Action": kept}] if kept else []
    return {**document, "Statement": statements}


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def unused(platform: Platform, role: str) -> list[Right]:
    """The rights that the role has not used since the platform was deployed."""
    used = {(each["sid"] or "-", each["action"]) for each in _decided(platform, role) if each["allowed"]}
    return [right for right in rights(platform, role) if (right.sid, right.action) not in used]


def lacking(platform: Platform, role: str) -> set[str]:
    """The actions that the role was refused since the platform was deployed."""
    return {each["action"] for each in _decided(platform, role) if not each["allowed"]}


def _decided(platform: Platform, role: str) -> list[dict[str, Any]]:
    lines = (platform.home / "rights.jsonl").read_text().splitlines()
    return [decision for decision in map(json.loads, lines) if decision["role"] == role]


def used_since(platform: Platform, role: str, when: float) -> bool:
    last = platform.aws("iam").get_role(RoleName=role)["Role"].get("RoleLastUsed") or {}
    return "LastUsedDate" in last and last["LastUsedDate"].timestamp() >= int(when)


def refusals(platform: Platform, since: float, until: float | None = None) -> Iterator[dict[str, Any]]:
    """The refused calls of any role, as the event history has them."""
    window = {"StartTime": since, "EndTime": until or time.time() + 1}
    for page in platform.aws("cloudtrail").get_paginator("lookup_events").paginate(**window):
        for event in page["Events"]:
            record = json.loads(event["CloudTrailEvent"])
            if record.get("errorCode") == "AccessDenied" and record["userIdentity"]["type"] != "IAMUser":
                yield record


def refused(platform: Platform, role: str, since: float) -> set[str]:
    """The actions that were refused to the role."""
    return {
        f"{record['eventSource'].partition('.')[0]}:{record['eventName']}"
        for record in refusals(platform, since)
        if record["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("userName") == role
    }


class Copy:
    """A role like one of the platform's, for `name` instead of `original`, whose rights can be taken away.

    `others` are names of what it must not share with the original either.
    """

    def __init__(self, platform: Platform, role: str, original: str, *others: str) -> None:
        self.platform = platform
        self._suffix = f"-{uuid.uuid4().hex[:6]}"
        self._names = re.compile("|".join(map(re.escape, sorted((original, *others), key=len, reverse=True))))
        self.name = self.renamed(original)
        iam = platform.aws("iam")
        found = iam.get_role(RoleName=role)["Role"]
        self.role = f"copy-{uuid.uuid4().hex[:12]}"
        trust = json.dumps(found["AssumeRolePolicyDocument"])
        self.arn = iam.create_role(RoleName=self.role, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        self.documents = {
            name: json.loads(self.renamed(json.dumps(document)))
            for name, document in policies(platform, role).items()
        }
        self.take()

    def renamed(self, text: str) -> str:
        """The text, with the copy's names instead of the original's."""
        return self._names.sub(rf"\g<0>{self._suffix}", text)

    def take(self, *removed: Right) -> float:
        """Give the role everything but these rights; returns since when."""
        for name, document in self.documents.items():
            rest = without(document, *(right for right in removed if right.policy == name))
            self.platform.aws("iam").put_role_policy(
                RoleName=self.role, PolicyName=name, PolicyDocument=json.dumps(rest)
            )
        return time.time()

    def refused(self, since: float) -> set[str]:
        return refused(self.platform, self.role, since)

    def delete(self) -> None:
        iam = self.platform.aws("iam")
        for name in self.documents:
            iam.delete_role_policy(RoleName=self.role, PolicyName=name)
        iam.delete_role(RoleName=self.role)


class FunctionCopy(Copy):
    """A function like one of the platform's, whose role is a copy too."""

    def __init__(self, platform: Platform, function: str, cache: Path) -> None:
        functions = platform.aws("lambda")
        found = functions.get_function(FunctionName=function)
        self.config = found["Configuration"]
        group = self.config["LoggingConfig"]["LogGroup"]
        super().__init__(platform, self.config["Role"].rpartition("/")[2], function, group)
        self.cache, self.group = cache, self.renamed(group)
        self.vpc = {
            name: self.config.get("VpcConfig", {}).get(name) or []
            for name in ("SubnetIds", "SecurityGroupIds")
        }
        platform.aws("logs").create_log_group(logGroupName=self.group)
        functions.create_function(
            FunctionName=self.name,
            Role=self.arn,
            Code={"ZipFile": platform.http.get(_address(platform, found["Code"]["Location"])).content},
            LoggingConfig={**self.config["LoggingConfig"], "LogGroup": self.group},
            VpcConfig=self.vpc,
            Environment=self._environment(),
            **{name: self.config[name] for name in ("Runtime", "Handler", "Timeout", "TracingConfig")},
        )

    def _environment(self) -> dict[str, Any]:
        own = {
            # Every start downloads anew, as it does in Lambda.
            "ARTIFACT_CACHE": str(self.cache / uuid.uuid4().hex),
            # What fails here must ring no alarm of the platform's.
            "METRICS_NAMESPACE": self.name,
        }
        variables = self.renamed(json.dumps(self.config["Environment"]["Variables"]))
        return {"Variables": {**json.loads(variables), **own}}

    def restart(self) -> str | None:
        """Attach the function to its network again, and start it afresh; why Lambda refuses, or None."""
        functions = self.platform.aws("lambda")
        try:
            functions.update_function_configuration(
                FunctionName=self.name, VpcConfig=self.vpc, Environment=self._environment()
            )
        except functions.exceptions.InvalidParameterValueException as error:
            return str(error)
        return None

    def observe(
        self, events: list[dict[str, Any]], missing: Right | None = None, since: float = 0
    ) -> dict[str, object]:
        """What the function answers to these events, and what it leaves behind, `missing` a right since."""
        began, before, captures = time.time(), self._lines(), self._captures()
        answers = []
        for event in events:
            invoked = self.platform.aws("lambda").invoke(FunctionName=self.name, Payload=json.dumps(event))
            answers.append(json.loads(invoked["Payload"].read()).get("statusCode"))
        xray = self.platform.aws("xray")
        summaries = xray.get_trace_summaries(StartTime=began, EndTime=time.time() + 1)["TraceSummaries"]
        traced = any(one["Name"] == self.name for summary in summaries for one in summary["ServiceIds"])
        captured = False
        if captures is not None and 200 in answers:
            # It comes after the answer, or is refused then.
            def settled() -> bool:
                nonlocal captured
                captured = (self._captures() or 0) > captures
                return captured or bool(missing and missing.action in self.refused(since))

            until(settled)
        return {
            "answers": answers,
            "logged": self._lines() > before,
            "traced": traced,
            "captured": captured,
        }

    def _captures(self) -> int | None:
        """How many captures there are; None of a function that makes none."""
        uri = self._environment()["Variables"].get("CAPTURE_URI")
        if not uri:
            return None
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        found = self.platform.aws("s3").list_objects_v2(Bucket=bucket, Prefix=prefix)
        return int(found["KeyCount"])

    def _lines(self) -> int:
        pages = self.platform.aws("logs").get_paginator("filter_log_events").paginate(logGroupName=self.group)
        return sum(len(page["events"]) for page in pages)

    def delete(self) -> None:
        self.platform.aws("lambda").delete_function(FunctionName=self.name)
        self.platform.aws("logs").delete_log_group(logGroupName=self.group)
        super().delete()


class EndpointCopy(Copy):
    """An endpoint like one of the platform's, with a copy of its model's role, made without some rights."""

    def __init__(self, platform: Platform, endpoint: str, *missing: Right) -> None:
        sagemaker = platform.aws("sagemaker")
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        described = sagemaker.describe_endpoint_config(EndpointConfigName=config)
        [variant] = described["ProductionVariants"]
        model = sagemaker.describe_model(ModelName=variant["ModelName"])
        super().__init__(platform, model["ExecutionRoleArn"].rpartition("/")[2], endpoint)
        self.since = self.take(*missing)
        kept = ("PrimaryContainer", "VpcConfig", "EnableNetworkIsolation")
        sagemaker.create_model(
            ModelName=self.name, ExecutionRoleArn=self.arn, **{name: model[name] for name in kept}
        )
        capture = described.get("DataCaptureConfig")
        sagemaker.create_endpoint_config(
            EndpointConfigName=self.name,
            ProductionVariants=[{**variant, "ModelName": self.name}],
            **({"DataCaptureConfig": capture} if capture else {}),
        )
        sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=self.name)
        self.group = f"/aws/sagemaker/Endpoints/{self.name}"
        self.capture = capture

    def settled(self) -> dict[str, Any]:
        """DescribeEndpoint's answer once the endpoint is in service or has failed."""
        sagemaker = self.platform.aws("sagemaker")

        def described() -> Any:
            found = sagemaker.describe_endpoint(EndpointName=self.name)
            return found if found["EndpointStatus"] in ("InService", "Failed") else None

        found: dict[str, Any] = until(described)
        return found

    def invoke(self, body: bytes) -> None:
        runtime = self.platform.aws("sagemaker-runtime")
        runtime.invoke_endpoint(EndpointName=self.name, Body=body, ContentType="application/json")

    def streams(self) -> int | None:
        """How many streams the log group has; None if there is no group."""
        logs = self.platform.aws("logs")
        groups = logs.describe_log_groups(logGroupNamePrefix=self.group)["logGroups"]
        return len(logs.describe_log_streams(logGroupName=self.group)["logStreams"]) if groups else None

    def lines(self) -> int:
        found = self.platform.aws("logs").filter_log_events(logGroupName=self.group)["events"]
        return len(found)

    def measured(self) -> bool:
        dimension = {"Name": "EndpointName", "Value": self.name}
        metrics = self.platform.aws("cloudwatch").list_metrics(Namespace=METRICS, Dimensions=[dimension])
        return bool(metrics["Metrics"])

    def captures(self) -> int:
        bucket, _, prefix = self.capture["DestinationS3Uri"].removeprefix("s3://").partition("/")
        found = self.platform.aws("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{self.name}/")
        return int(found["KeyCount"])

    def delete(self) -> None:
        sagemaker = self.platform.aws("sagemaker")
        sagemaker.delete_endpoint(EndpointName=self.name)
        sagemaker.delete_endpoint_config(EndpointConfigName=self.name)
        sagemaker.delete_model(ModelName=self.name)
        if self.streams() is not None:
            self.platform.aws("logs").delete_log_group(logGroupName=self.group)
        super().delete()


def _address(platform: Platform, location: str) -> str:
    """Where a function's code is: MiniStack names a host and a port without TLS."""
    parts = urlsplit(location)
    return f"{platform.aws('lambda').meta.endpoint_url}{parts.path}?{parts.query}"


@contextlib.contextmanager
def without_right_to_call(platform: Platform, sid: str) -> Iterator[None]:
    """The API's role without one of its statements."""
    iam = platform.aws("iam")
    [role] = [
        role["RoleName"]
        for role in iam.list_roles()["Roles"]
        if role["RoleName"].startswith("inference-local-api-Caller")
    ]
    [policy] = iam.list_role_policies(RoleName=role)["PolicyNames"]
    document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
    rest = [statement for statement in document["Statement"] if statement.get("Sid") != sid]
    assert len(rest) == len(document["Statement"]) - 1

    def put(statements: list[Any]) -> None:
        changed = json.dumps({**document, "Statement": statements})
        iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=changed)

    put(rest)
    try:
        yield
    finally:
        put(document["Statement"])
