"""What starts releases and stores versions: which events, and that neither can do what the other does."""

from typing import Any

from tests.assembly import Assembly


def rights(assembly: Assembly, description: str) -> dict[str, Any]:
    """The statements of the role of the function whose description begins so, by Sid."""
    [function] = [
        one
        for one in assembly.resources("AWS::Lambda::Function")
        if str(one.properties.get("Description")).startswith(description)
    ]
    role = {"Ref": function.properties["Role"]["Fn::GetAtt"][0]}
    return {
        statement["Sid"]: statement["Action"]
        for policy in assembly.resources("AWS::IAM::Policy")
        if policy.stack == function.stack and role in policy.properties["Roles"]
        for statement in policy.properties["PolicyDocument"]["Statement"]
        if "Sid" in statement
    }


def test_manifests_approvals_and_the_ends_of_packages_releases_are_what_it_hears_of(
    assembly: Assembly,
) -> None:
    stack = f"inference-{assembly.environment}-releases"
    patterns = [
        rule.properties["EventPattern"]
        for rule in assembly.resources("AWS::Events::Rule")
        if rule.stack == stack
    ]
    [pattern] = [one for one in patterns if "aws.s3" in one["source"]]
    uploads, approvals, ends = pattern["detail"]["$or"]
    assert uploads["object"]["key"] == [{"wildcard": "incoming/*/manifest.json"}]
    assert approvals == {
        "ModelPackageGroupName": [{"prefix": f"inference-{assembly.environment}-"}],
        "ModelApprovalStatus": ["Approved"],
    }
    assert ends == {"environment": [assembly.environment], "source": ["registry"]}


def test_what_starts_releases_reads_manifests_and_writes_nothing_but_a_packages_stage(
    assembly: Assembly,
) -> None:
    found = rights(assembly, "Starts releases")
    assert found["ReadManifests"] == "s3:GetObject"
    assert found["ReadAndMarkPackages"] == ["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"]
    actions = {
        action for given in found.values() for action in ([given] if isinstance(given, str) else given)
    }
    assert not {action for action in actions if action.startswith(("s3:Put", "dynamodb:", "lambda:"))}


def test_what_stores_versions_deletes_nothing_and_starts_nothing(assembly: Assembly) -> None:
    found = rights(assembly, "Copies validated uploads")
    assert found["CopyArtifacts"] == ["s3:GetObject", "s3:PutObject"]
    assert found["ClaimVersions"] == ["dynamodb:GetItem", "dynamodb:PutItem"]
    actions = {
        action for given in found.values() for action in ([given] if isinstance(given, str) else given)
    }
    assert not {action for action in actions if "Delete" in action or action.startswith("states:")}
