"""What tries new versions: where it runs, and that it can read one model's files and change nothing."""

from typing import Any

import pytest

from tests.assembly import Assembly, Resource

MODELS = {"file-type": "cpu", "text-embedding": "gpu"}


def validator(assembly: Assembly, model: str) -> Resource:
    return assembly.function(f"inference-{assembly.environment}-val_{MODELS[model]}_{model}")


def statements(assembly: Assembly, function: Resource) -> list[dict[str, Any]]:
    role = {"Ref": function.properties["Role"]["Fn::GetAtt"][0]}
    return [
        statement
        for policy in assembly.resources("AWS::IAM::Policy")
        if policy.stack == function.stack and role in policy.properties["Roles"]
        for statement in policy.properties["PolicyDocument"]["Statement"]
    ]


@pytest.mark.parametrize("model", MODELS)
def test_it_can_read_its_models_files_and_change_nothing(assembly: Assembly, model: str) -> None:
    by_sid = {one["Sid"]: one for one in statements(assembly, validator(assembly, model)) if "Sid" in one}
    assert {sid: one["Action"] for sid, one in by_sid.items() if "Versions" in sid} == {
        "ReadVersions": "s3:GetObject",
        "FindVersions": "s3:ListBucket",
        "DecryptVersions": "kms:Decrypt",
    }
    assert by_sid.keys() - {"ReadVersions", "FindVersions", "DecryptVersions"} == {
        "WriteLogs",
        "AttachToTheNetwork",
    }
    ends = {
        (arn if isinstance(arn, str) else str(arn["Fn::Join"][1][-1])).partition("/")[2]
        for arn in by_sid["ReadVersions"]["Resource"]
    }
    assert ends == {f"incoming/{model}/*", f"registry/{model}/*", f"{model}/*"}


@pytest.mark.parametrize("model", MODELS)
def test_it_runs_what_will_serve_in_the_private_network(assembly: Assembly, model: str) -> None:
    function = validator(assembly, model).properties
    serving = assembly.function(f"inference-{assembly.environment}-file-type").properties
    assert function["Code"] == serving["Code"]
    assert function["Handler"] == "validate.handler"
    assert len(function["VpcConfig"]["SubnetIds"]) == len(serving["VpcConfig"]["SubnetIds"])


def test_a_cpu_model_is_tried_and_timed_as_it_is_served(assembly: Assembly) -> None:
    function = validator(assembly, "file-type").properties
    assert function["MemorySize"] == 1769
    assert function["Environment"]["Variables"]["P50_MS"] == "500"
    assert "P50_MS" not in validator(assembly, "text-embedding").properties["Environment"]["Variables"]
