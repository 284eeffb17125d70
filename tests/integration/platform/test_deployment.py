"""What a deployment leaves behind: whole artifacts, state that no deployment undoes, enforced roles."""

import hashlib
import json

import pytest
from botocore.exceptions import ClientError

from tests.integration.platform.conftest import Platform
from tests.integration.platform.rights import without_right_to_call

MODELS = ("file-type", "text-embedding")


def test_artifacts_lie_whole_under_their_hash(platform: Platform) -> None:
    s3, bucket = platform.aws("s3"), "inference-local-models-000000000000-us-east-1"
    for model in MODELS:
        live = platform.aws("ssm").get_parameter(Name=f"/inference/local/models/{model}/live")
        sha256 = live["Parameter"]["Value"]
        content = s3.get_object(Bucket=bucket, Key=f"{model}/{sha256}/manifest.json")["Body"].read()
        assert hashlib.sha256(content).hexdigest() == sha256
        for name, entry in json.loads(content)["files"].items():
            body = s3.get_object(Bucket=bucket, Key=f"{model}/{sha256}/{name}")["Body"].read()
            assert hashlib.sha256(body).hexdigest() == entry["sha256"], name


def test_deploying_again_changes_nothing_and_keeps_what_is_live(platform: Platform) -> None:
    ssm, cloudformation = platform.aws("ssm"), platform.aws("cloudformation")
    names = [f"/inference/local/models/{model}/live" for model in MODELS]

    def state() -> tuple[object, ...]:
        live = ssm.get_parameters(Names=names)["Parameters"]
        stacks = cloudformation.describe_stacks()["Stacks"]
        alias = platform.aws("lambda").get_alias(FunctionName="inference-local-file-type", Name="live")
        endpoint = platform.aws("sagemaker").describe_endpoint(EndpointName="inference-local-text-embedding")
        return (
            sorted((p["Name"], p["Value"], p["Version"]) for p in live),
            sorted(
                (stack["StackName"], stack["StackStatus"], str(stack.get("LastUpdatedTime")))
                for stack in stacks
                if "-model-" not in stack["StackName"]
            ),
            sorted(made(stack["StackName"]) for stack in stacks),
            (alias["FunctionVersion"], alias.get("RoutingConfig")),
            (endpoint["EndpointConfigName"], endpoint["LastModifiedTime"]),
        )

    def made(stack: str) -> tuple[object, ...]:
        """A stack's resources. The templates of models have dynamic references: CloudFormation goes through
        these for nothing, rather than finding nothing to do.
        """
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
        resources = [one for page in pages for one in page["StackResourceSummaries"]]
        return stack, sorted((one["LogicalResourceId"], one["PhysicalResourceId"]) for one in resources)

    before = state()
    done = platform.inferctl("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert state() == before


def test_the_account_outside_the_roles_is_refused(platform: Platform) -> None:
    iam, sts = platform.aws("iam"), platform.aws("sts")
    name = "outsider"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    credentials = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    outsider = platform.deployed.aws.session.client(
        "sagemaker-runtime",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        **platform.deployed.aws.options,
    )
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:InvokeEndpoint"):
        outsider.invoke_endpoint(EndpointName="inference-local-text-embedding", Body=b"{}")
    iam.delete_role(RoleName=name)


def test_the_api_cannot_call_a_model_once_its_role_may_not(platform: Platform) -> None:
    bodies = {
        "file-type": b'{"inputs":[{"name":"content","datatype":"BYTES","shape":[1],"data":["x"]}]}',
        "text-embedding": b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["x"]}]}',
    }
    for sid, model in (("InvokeCpuModels", "file-type"), ("InvokeGpuModels", "text-embedding")):
        with without_right_to_call(platform, sid):
            answer = platform.infer(model, bodies[model])
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:inference-platform:problem:internal"
        assert "role" not in answer.text
    for model, body in bodies.items():
        assert platform.infer(model, body).status_code == 200
