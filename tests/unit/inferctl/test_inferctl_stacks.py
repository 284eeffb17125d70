"""What `status` shows and what `prune` deletes, with moto's CloudFormation, Lambda, SageMaker and SSM."""

import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from click.testing import CliRunner, Result

from inferctl import stacks
from inferctl.cli import cli
from inferctl.environment import Aws
from inferctl.errors import InferctlError
from inferctl.output import Output
from tests.unit.inferctl.fake_api import Api

Clients = Callable[[str], Any]

TEMPLATE = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--env", "dev", *arguments], prog_name="inferctl")


def create(aws: Clients, name: str, environment: str | None = "dev", *, protected: bool = False) -> None:
    tags = [{"Key": "inference:environment", "Value": environment}] if environment else []
    aws("cloudformation").create_stack(
        StackName=name, TemplateBody=TEMPLATE, Tags=tags, EnableTerminationProtection=protected
    )


def existing(aws: Clients) -> set[str]:
    return {stack["StackName"] for stack in aws("cloudformation").describe_stacks()["Stacks"]}


@pytest.fixture
def assembly(tmp_path: Path) -> Path:
    artifacts = {
        name: {"type": "aws:cloudformation:stack", "properties": {"stackName": name}}
        for name in ("inference-dev-keys", "inference-dev-api")
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    return tmp_path


@pytest.fixture
def deployed(aws: Clients) -> Clients:
    """Two stacks of the app, two that left it, and several that are none of our business."""
    for name in ("inference-dev-keys", "inference-dev-old", "inference-dev-model-older", "inference-dev-api"):
        create(aws, name)
    create(aws, "inference-dev-untagged", None)
    create(aws, "inference-prod-model-x", "prod")
    create(aws, "somebody-elses", "dev")
    return aws


class TestPrune:
    def test_it_deletes_what_left_the_app_and_nothing_else(self, deployed: Clients, assembly: Path) -> None:
        result = run("prune", "--yes", "--json", "--assembly", str(assembly))
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {
            "deleted": ["inference-dev-model-older", "inference-dev-old"],
            "protected": [],
        }
        assert existing(deployed) == {
            "inference-dev-keys",
            "inference-dev-api",
            "inference-dev-untagged",
            "inference-prod-model-x",
            "somebody-elses",
        }

    def test_without_a_person_to_ask_it_deletes_nothing(self, deployed: Clients, assembly: Path) -> None:
        before = existing(deployed)
        result = run("prune", "--assembly", str(assembly))
        assert result.exit_code == 2
        assert "This would delete inference-dev-model-older, inference-dev-old; pass --yes" in result.stderr
        assert existing(deployed) == before

    def test_protected_stacks_need_their_own_word(self, deployed: Clients, assembly: Path) -> None:
        create(deployed, "inference-dev-model-gold", protected=True)
        result = run("prune", "--yes", "--assembly", str(assembly))
        assert (
            "Protected from deletion, and left alone without --unprotect: inference-dev-model-gold."
            in result.stderr
        )
        assert "inference-dev-model-gold" in existing(deployed)

    def test_a_protected_stack_is_unprotected_first(self) -> None:
        # moto has no UpdateTerminationProtection; botocore's stubber checks the calls and their order.
        client = boto3.client("cloudformation", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        arn = "arn:aws:cloudformation:us-east-1:111122223333:stack/inference-dev-old/1"
        created = datetime(2026, 1, 1, tzinfo=UTC)
        gone = {"StackName": "inference-dev-old", "CreationTime": created, "StackStatus": "DELETE_COMPLETE"}
        with Stubber(client) as stub:
            stub.add_response(
                "update_termination_protection",
                {},
                {"StackName": "inference-dev-old", "EnableTerminationProtection": False},
            )
            stub.add_response("delete_stack", {}, {"StackName": arn})
            stub.add_response("describe_stacks", {"Stacks": [gone]}, {"StackName": arn})
            doomed = stacks.Stack("inference-dev-old", arn, "CREATE_COMPLETE", created, protected=True)
            with Output().board("Test") as board:
                stacks.delete(Aws(SimpleNamespace(client=lambda _: client)), [doomed], board)
            stub.assert_no_pending_responses()

    def test_a_clean_environment_stays_as_it_is(self, aws: Clients, assembly: Path) -> None:
        create(aws, "inference-dev-keys")
        result = run("prune", "--assembly", str(assembly))
        assert (result.exit_code, result.stdout) == (0, "Nothing to delete.\n")

    def test_an_assembly_without_stacks_is_refused(self) -> None:
        with pytest.raises(InferctlError, match="would delete the whole environment"):
            stacks.orphans([], [])

    def test_a_nested_stack_goes_with_its_parent_only(self) -> None:
        # moto's nested stacks do not carry their parent's tags and id, as AWS's do.
        client = boto3.client("cloudformation", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
        parent = {
            "StackName": "inference-dev-api",
            "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/inference-dev-api/1",
            "StackStatus": "CREATE_COMPLETE",
            "CreationTime": datetime(2026, 1, 1, tzinfo=UTC),
            "Tags": [{"Key": "inference:environment", "Value": "dev"}],
        }
        nested = parent | {"StackName": "inference-dev-api-Routes-1A2B", "ParentId": parent["StackId"]}
        with Stubber(client) as stub:
            stub.add_response("describe_stacks", {"Stacks": [parent, nested]})
            found = stacks.deployed(Aws(SimpleNamespace(client=lambda _: client)), "dev")
        assert [stack.name for stack in found] == ["inference-dev-api"]


class TestStatus:
    def test_it_shows_stacks_models_and_the_address(self, deployed: Clients, dev: Api) -> None:
        deployed("ssm").put_parameter(
            Name="/inference/dev/models/file-type/live", Value="cd" * 32, Type="String"
        )
        self.function(deployed, "inference-dev-file-type")
        result = run("status", "--json")
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        assert document["environment"] == "dev"
        assert document["api_url"] == f"{dev.url}/dev"
        assert [stack["name"] for stack in document["stacks"]] == [
            "inference-dev-keys",
            "inference-dev-old",
            "inference-dev-model-older",
            "inference-dev-api",
        ]
        models = {model["name"]: model for model in document["models"]}
        assert models["file-type"] == {
            "name": "file-type",
            "target": "cpu",
            "live": "cd" * 32,
            "status": "Active",
        }
        assert models["text-embedding"]["status"] == "NotDeployed"

    def test_a_deployment_that_stopped_half_way_is_shown_too(self, deployed: Clients) -> None:
        result = run("status")
        assert result.exit_code == 0
        assert "inference-dev-keys         CREATE_COMPLETE" in result.stdout
        assert "API  not deployed" in result.stdout

    def test_an_account_without_the_environment_exits_3(self, aws: Clients) -> None:
        result = run("status")
        assert result.exit_code == 3
        assert "it is not deployed" in result.stderr

    def function(self, aws: Clients, name: str) -> None:
        role = aws("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("handler.py", "")
        client = aws("lambda")
        client.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Handler="handler.handler",
            Code={"ZipFile": code.getvalue()},
            Publish=True,
        )
        client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
