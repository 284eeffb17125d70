"""`inferctl diff`: every rule on a pair of templates made for it, and the whole on real assemblies."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from catalog.accepted import AcceptedChange
from inferctl.cli import cli
from inferctl.errors import InputError
from inferctl.review import templates
from inferctl.review.changes import changes, create_only
from inferctl.review.report import review
from inferctl.review.risk import rate
from tests.assembly import Assembly

STACK = "inference-dev-example"


def resource(type_: str, properties: dict[str, Any] | None = None, **attributes: Any) -> dict[str, Any]:
    return {"Type": type_, "Properties": properties or {}, **attributes}


def pair(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[templates.Templates]:
    return [{STACK: {"Resources": {"It": each} if each else {}}} for each in (before, after)]


def rated(before: dict[str, Any] | None, after: dict[str, Any] | None) -> tuple[str, str]:
    """The rating of the one change between the two resources, and its reasons."""
    [change] = changes(*pair(before, after))
    result = rate(change)
    return result.rating, "; ".join(result.reasons)


def policy(*statements: dict[str, Any], type_: str = "AWS::IAM::Policy") -> dict[str, Any]:
    full = [{"Effect": "Allow", **statement} for statement in statements]
    return resource(type_, {"PolicyDocument": {"Version": "2012-10-17", "Statement": full}})


def ingress(cidr: str) -> dict[str, Any]:
    rule = {"CidrIp": cidr, "FromPort": 22, "ToPort": 22, "IpProtocol": "tcp"}
    return resource("AWS::EC2::SecurityGroup", {"GroupDescription": "x", "SecurityGroupIngress": [rule]})


def api(**operation: Any) -> dict[str, Any]:
    return resource("AWS::ApiGateway::RestApi", {"Body": {"paths": {"/v2": {"get": operation}}}})


READ = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}
ONLY_OURS = {"StringEquals": {"aws:PrincipalAccount": "111122223333"}}
TLS_ONLY = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*", "Principal": "*"}
BUCKET = resource("AWS::S3::Bucket", {"BucketName": "b"}, UpdateReplacePolicy="Delete")
KEPT = resource("AWS::S3::Bucket", {"BucketName": "b"}, DeletionPolicy="Retain", UpdateReplacePolicy="Retain")
BLOCKED = {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": True}}
OPEN = {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": False}}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param(BUCKET, None, "loses its objects", id="bucket removed"),
        pytest.param(KEPT, None, "leaves its objects behind", id="retained bucket removed"),
        pytest.param(
            BUCKET, resource("AWS::S3::Bucket", {"BucketName": "c"}), "BucketName", id="bucket replaced"
        ),
        pytest.param(
            resource("AWS::SSM::Parameter", {"Name": "/inference/dev/models/m/live"}),
            None,
            "which version is live",
            id="live parameter removed",
        ),
        pytest.param(KEPT, BUCKET, "DeletionPolicy Retain becomes Delete", id="deletion policy loosened"),
        pytest.param(
            resource("AWS::S3::Bucket", BLOCKED),
            resource("AWS::S3::Bucket", OPEN),
            "BlockPublicPolicy no longer protects",
            id="public access block loosened",
        ),
        pytest.param(
            resource("AWS::SNS::Topic", {"KmsMasterKeyId": "k"}),
            resource("AWS::SNS::Topic"),
            "KmsMasterKeyId no longer protects",
            id="encryption removed",
        ),
        pytest.param(
            resource("AWS::KMS::Key", {"EnableKeyRotation": True}),
            resource("AWS::KMS::Key", {"EnableKeyRotation": False}),
            "EnableKeyRotation",
            id="rotation switched off",
        ),
        pytest.param(
            resource("AWS::S3::Bucket", {"VersioningConfiguration": {"Status": "Enabled"}}),
            resource("AWS::S3::Bucket", {"VersioningConfiguration": {"Status": "Suspended"}}),
            "VersioningConfiguration",
            id="versioning suspended",
        ),
        pytest.param(policy(READ), policy(READ | {"Action": "s3:*"}), "every action: s3:*", id="all actions"),
        pytest.param(None, policy({"Action": "*", "Resource": "*"}), "every action: *", id="administrator"),
        pytest.param(
            policy(READ),
            policy(READ | {"Resource": "*"}),
            "s3:GetObject on every resource",
            id="all resources",
        ),
        pytest.param(
            policy(READ),
            policy({"NotAction": "iam:*", "Resource": "r"}),
            "every action",
            id="all actions but",
        ),
        pytest.param(
            policy(READ | {"Condition": ONLY_OURS}),
            policy(READ),
            "without its condition",
            id="condition gone",
        ),
        pytest.param(
            policy(READ, type_="AWS::S3::BucketPolicy"),
            policy(READ | {"Principal": {"AWS": "*"}}, type_="AWS::S3::BucketPolicy"),
            "to everybody",
            id="public bucket policy",
        ),
        pytest.param(
            policy(READ, TLS_ONLY, type_="AWS::S3::BucketPolicy"),
            policy(READ, type_="AWS::S3::BucketPolicy"),
            "no longer denies s3:*",
            id="denial removed",
        ),
        pytest.param(
            resource("AWS::IAM::Role"),
            resource(
                "AWS::IAM::Role", {"ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]}
            ),
            "attaches AdministratorAccess",
            id="administrator's managed policy",
        ),
        pytest.param(ingress("10.0.0.0/8"), ingress("0.0.0.0/0"), "0.0.0.0/0 at port 22", id="group opened"),
        pytest.param(
            None,
            resource("AWS::EC2::SecurityGroupEgress", {"CidrIpv6": "::/0", "IpProtocol": "-1"}),
            "::/0 at port any",
            id="rule that opens",
        ),
        pytest.param(None, resource("AWS::EC2::NatGateway"), "a way out", id="NAT gateway"),
        pytest.param(
            None,
            resource("AWS::EC2::Route", {"DestinationCidrBlock": "0.0.0.0/0"}),
            "routes to everywhere",
            id="route out",
        ),
        pytest.param(
            resource("AWS::WAFv2::WebACLAssociation"),
            None,
            "the firewall before the API",
            id="firewall removed",
        ),
        pytest.param(
            api(security=[{"pool": ["invoke"]}]), api(), "GET /v2 without a token", id="route opened"
        ),
    ],
)
def test_dangerous(before: dict[str, Any] | None, after: dict[str, Any] | None, reason: str) -> None:
    rating, said = rated(before, after)
    assert rating == "dangerous"
    assert reason in said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(policy(READ), policy(READ, READ | {"Action": "s3:ListBucket"}), id="one more right"),
        pytest.param(None, policy(READ), id="new policy"),
        pytest.param(
            None,
            policy({"Action": ["xray:PutTraceSegments"], "Resource": "*"}),
            id="what has no resource-level rights",
        ),
        pytest.param(
            None,
            policy(READ | {"Principal": "*", "Condition": ONLY_OURS}, type_="AWS::S3::BucketPolicy"),
            id="everybody, on a condition",
        ),
        pytest.param(
            resource("AWS::IAM::Role", {"RoleName": "a"}),
            resource("AWS::IAM::Role", {"RoleName": "b"}),
            id="stateless replaced",
        ),
        pytest.param(resource("AWS::CloudWatch::Alarm"), None, id="stateless removed"),
        pytest.param(BUCKET, KEPT, id="kept from now on"),
        pytest.param(
            resource("AWS::SSM::Parameter", {"Name": "/inference/dev/api/url"}), None, id="another parameter"
        ),
        pytest.param(ingress("0.0.0.0/0"), ingress("10.0.0.0/8"), id="group closed"),
    ],
)
def test_to_review(before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    assert rated(before, after)[0] == "review"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(None, BUCKET, id="new bucket"),
        pytest.param(
            resource("AWS::CloudWatch::Dashboard", {"DashboardBody": "a"}),
            resource("AWS::CloudWatch::Dashboard", {"DashboardBody": "b"}),
            id="dashboard",
        ),
        pytest.param(
            resource("AWS::IAM::Role", {"Description": "a"}),
            resource("AWS::IAM::Role", {"Description": "b"}),
            id="description",
        ),
        pytest.param(resource("AWS::Lambda::Version", {"FunctionName": "f"}), None, id="version"),
    ],
)
def test_safe(before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    assert rated(before, after)[0] == "safe"


def test_replacement_follows_cloudformations_schema() -> None:
    assert ("BucketName",) in create_only("AWS::S3::Bucket")
    assert create_only("Custom::ModelArtifact") == ()
    variant = {"ProductionVariants": [{"VariantName": "A", "ModelName": "one"}]}
    other = {"ProductionVariants": [{"VariantName": "A", "ModelName": "two"}]}
    type_ = "AWS::SageMaker::EndpointConfig"
    [change] = changes(*pair(resource(type_, variant), resource(type_, other)))
    assert change.action == "replace"
    assert change.properties == (("ProductionVariants", "0", "ModelName"),)


def test_new_bytes_to_serve_are_no_change() -> None:
    one, two = (
        {
            "Resources": {
                f"FunctionCurrentVersion5C3C5EA3{digit * 32}": resource("AWS::Lambda::Version"),
                "Function": resource("AWS::Lambda::Function", {"Code": {"S3Key": f"{digit * 64}.zip"}}),
            },
            "Parameters": {"BootstrapVersion": {"Default": digit}},
        }
        for digit in "ab"
    )
    assert templates.normalized(one) == templates.normalized(two)


def test_what_was_declared_is_accepted_and_what_does_not_apply_is_stale() -> None:
    declared = [
        AcceptedChange(stack=stack, resource=name, reason="Moved to the other account.")
        for stack, name in ((STACK, "It"), (STACK, "Other"), ("inference-prod-example", "It"))
    ]
    found = review("dev", "main", *pair(BUCKET, None), declared)
    assert found.undeclared == []
    assert [entry.resource for entry in found.stale] == ["Other"]
    assert "accepted" in found.markdown()
    assert len(review("dev", "main", *pair(BUCKET, None), []).undeclared) == 1


def test_a_comment_cannot_be_forged_by_a_template() -> None:
    hostile = resource("AWS::SNS::Topic", {"KmsMasterKeyId": "k"})
    name = "<img src=x>|**safe**\n@everybody"
    before = {STACK: {"Resources": {name: hostile}}}
    text = review("dev", "main", before, {STACK: {"Resources": {}}}, []).markdown()
    [line] = [line for line in text.splitlines() if "Topic" in line]
    assert "<img" not in line
    assert line.count("|") - line.count("\\|") == 6
    assert text.startswith("<!-- inferctl diff dev -->\n### dev against main: 1 dangerous")


def edited(assembly: Assembly, folder: Path, stack: str, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the assembly's templates with one of them changed."""
    for name, template in assembly.templates.items():
        changed = copy.deepcopy(template)
        if name == stack:
            edit(changed["Resources"])
        (folder / f"{name}.template.json").write_text(json.dumps(changed))
    return folder


def diff(assembly: Path, against: Path | str, *options: str) -> Result:
    arguments = ["--env", "dev", "diff", "--assembly", str(assembly), "--against", str(against), *options]
    return CliRunner().invoke(cli, arguments)


def test_an_unchanged_app_changes_nothing(dev: Assembly) -> None:
    done = diff(dev.folder, dev.folder)
    assert (done.exit_code, done.stdout.strip()) == (0, "No changes.")


def test_a_bucket_that_leaves_a_real_assembly_stops_the_pipeline(dev: Assembly, tmp_path: Path) -> None:
    [data] = [r.logical_id for r in dev.resources("AWS::S3::Bucket") if r.logical_id.startswith("Data")]
    after = edited(dev, tmp_path, "inference-dev-storage", lambda resources: resources.pop(data))
    done = diff(after, dev.folder, "--json")
    assert done.exit_code == 1
    [change] = json.loads(done.stdout)["changes"]
    assert (change["rating"], change["resource"], change["accepted"]) == ("dangerous", data, None)
    assert data in diff(after, dev.folder, "--markdown").stdout


def test_a_new_model_is_never_dangerous(dev: Assembly, tmp_path: Path) -> None:
    before = edited(dev, tmp_path, "", lambda resources: None)
    for file in before.glob("*model-*"):
        file.unlink()
    done = diff(dev.folder, before, "--json")
    assert done.exit_code == 0, done.output
    counts = json.loads(done.stdout)["counts"]
    assert counts["dangerous"] == 0
    assert counts["review"] > 0


def test_a_commit_is_compared_by_its_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = [shutil.which("git") or "git", *identity, *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    folder = tmp_path / "tests" / "policy" / "baselines"
    monkeypatch.setattr(templates, "ROOT", tmp_path)
    monkeypatch.setattr(templates, "BASELINES", folder)
    [kept, _] = pair(BUCKET, None)
    git("init", "--quiet")
    templates.write_baseline("dev", {name: templates.normalized(t) for name, t in kept.items()}, folder)
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    templates.write_baseline("dev", {}, folder)
    assert templates.of_commit("dev", "HEAD")[STACK]["Resources"]["It"] == BUCKET
    assert templates.of_commit("prod", "HEAD") == {}
    with pytest.raises(InputError, match="no such commit"):
        templates.of_commit("dev", "--all")
