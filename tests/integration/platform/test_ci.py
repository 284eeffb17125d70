"""GitHub's roles, used as a workflow uses them: a token in, then a comparison, a deployment and a prune."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import boto3
import pytest
from aws_cdk.assertions import Template
from botocore.exceptions import ClientError

import local_aws
from app import ROOT
from catalog.environment import Ci
from catalog.loader import load_catalog, load_environment
from inferctl import health, stacks
from inferctl.cdk import deploy, variables
from inferctl.environment import Aws
from inferctl.output import Output
from inferctl.review import templates
from stacks.base import PlatformStack
from stacks.ci import ISSUER, CiStack
from tests.integration.platform.conftest import Platform

ENVIRONMENT = load_environment(ROOT / "config", "local")
DEPLOY, DIFF = "inference-local-ci-deploy", "inference-local-ci-diff"


@pytest.fixture
def assume(platform: Platform) -> Callable[..., Aws]:
    """Takes a role with a token as GitHub makes it for `subject`. The stack itself is deployed by root."""
    template = Template.from_stack(
        CiStack(cdk.App(), ENVIRONMENT, Ci(repository="acme/inference@7", oidc_provider=True))
    ).to_json()
    cloudformation, name = platform.aws("cloudformation"), "inference-local-ci"
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(template),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Tags=[{"Key": "inference:environment", "Value": "local"}],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})

    def take(role: str, subject: str, audience: str = "sts.amazonaws.com") -> Aws:
        claims = {"iss": f"https://{ISSUER}", "aud": audience, "sub": subject}
        parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims, "signature")]
        credentials = platform.aws("sts").assume_role_with_web_identity(
            RoleArn=f"arn:aws:iam::000000000000:role/{role}",
            RoleSessionName="workflow",
            WebIdentityToken=".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts),
        )["Credentials"]
        session = boto3.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
            region_name="us-east-1",
        )
        return Aws(session, platform.deployed.aws.options)

    return take


def refused(call: Callable[..., Any], **parameters: Any) -> bool:
    with pytest.raises(ClientError) as error:
        call(**parameters)
    return bool(error.value.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"))


def test_a_workflow_compares_deploys_and_prunes_under_its_roles_alone(
    platform: Platform, assume: Callable[..., Aws], tmp_path: Path
) -> None:
    # The right role for the right job, and for nobody else.
    right, pull_request = "repo:acme/inference@7:environment:local", "repo:acme/inference@7:pull_request"
    for role, subject in (
        (DEPLOY, pull_request),
        (DEPLOY, "repo:acme/inference@8:environment:local"),
        (DEPLOY, "repo:acme/inference@7:ref:refs/heads/main"),
        (DIFF, right),
    ):
        assert refused(assume, role=role, subject=subject)
    assert refused(assume, role=DEPLOY, subject=right, audience="https://example.com")

    # A pull request reads, and can do no more.
    looking = assume(DIFF, pull_request)
    assert "inference-local-api" in templates.of_deployed("local", looking)
    assert refused(looking.client("cloudformation").delete_stack, StackName="inference-local-api")
    deploy_role = "arn:aws:iam::000000000000:role/cdk-hnb659fds-deploy-role-000000000000-us-east-1"
    assert refused(looking.client("sts").assume_role, RoleArn=deploy_role, RoleSessionName="pull-request")

    # A deployment, as the workflow runs it: `cdk deploy`, then status and prune.
    app = cdk.App(outdir=str(tmp_path / "assembly"))
    extra = PlatformStack(app, "extra", ENVIRONMENT, description="Deployed by a workflow")
    extra.share("extra/id", "1")
    app.synth()
    acting = assume(DEPLOY, right)
    frozen = acting.session.get_credentials().get_frozen_credentials()
    own = local_aws.environment(local_aws.status(home=platform.home)) | {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
    }
    done = subprocess.run(
        deploy(tmp_path / "assembly", concurrency=1),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=variables(own),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = stacks.deployed(acting, "local")
    assert "inference-local-extra" in {stack.name for stack in found}
    states = {model.status for model in health.models(acting, "local", load_catalog(ROOT / "models"))}
    assert states <= {"Active", "InService"}
    orphans = [stack for stack in found if stack.name == "inference-local-extra"]
    with Output().board("Pruning") as board:
        stacks.delete(acting, orphans, board)
    assert "inference-local-extra" not in {stack.name for stack in stacks.deployed(acting, "local")}

    # What deploys cannot read data, make users, or lift a protection.
    assert refused(acting.client("iam").create_user, UserName="intruder")
    bucket = "inference-local-models-000000000000-us-east-1"
    assert refused(acting.client("s3").list_objects_v2, Bucket=bucket)
    assert refused(
        acting.client("cloudformation").update_termination_protection,
        StackName="inference-local-api",
        EnableTerminationProtection=False,
    )
    assert refused(acting.client("cloudformation").delete_stack, StackName="CDKToolkit")
    platform.aws("cloudformation").delete_stack(StackName="inference-local-ci")
