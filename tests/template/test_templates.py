"""What must hold for every template of every environment."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from app import ROOT
from tests.assembly import NAG_PACKS, Assembly


def test_no_stack_exports_or_imports_a_value(assembly: Assembly) -> None:
    for name, template in assembly.templates.items():
        assert not [o for o in template.get("Outputs", {}).values() if "Export" in o], name
        assert "Fn::ImportValue" not in json.dumps(template), name


def test_cloudformation_schemas_accept_every_resource(assembly: Assembly) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), *sorted(assembly.folder.glob("*.template.json"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_cdk_nag_has_no_unacknowledged_finding(assembly: Assembly) -> None:
    for pack in NAG_PACKS:
        found = [
            (violation["ruleName"], construct["constructPath"])
            for violation in assembly.nag(pack)["violations"]
            for construct in violation["violatingConstructs"]
        ]
        assert found == []
        for acknowledged in assembly.nag(pack)["suppressedViolations"]:
            assert len(acknowledged["reason"]) > 20, acknowledged["ruleName"]


def test_every_bucket_is_private_versioned_encrypted_and_tls_only(assembly: Assembly) -> None:
    policies = {
        json.dumps(policy.properties["Bucket"]): policy.properties["PolicyDocument"]
        for policy in assembly.resources("AWS::S3::BucketPolicy")
    }
    buckets = list(assembly.resources("AWS::S3::Bucket"))
    assert {b.logical_id.rstrip("0123456789ABCDEF") for b in buckets} >= {"Models", "Data", "AccessLogs"}
    for bucket in buckets:
        properties = bucket.properties
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, bucket.logical_id
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
        [rule] = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        # S3 can write access logs only to a bucket with its own keys.
        expected = "AES256" if bucket.logical_id.startswith("AccessLogs") else "aws:kms"
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == expected
        statements = policies[json.dumps({"Ref": bucket.logical_id})]["Statement"]
        assert any(
            s["Effect"] == "Deny" and s.get("Condition", {}).get("Bool") == {"aws:SecureTransport": "false"}
            for s in statements
        ), bucket.logical_id


def test_every_log_group_is_encrypted_and_ends(assembly: Assembly) -> None:
    groups = list(assembly.resources("AWS::Logs::LogGroup"))
    assert groups
    for group in groups:
        assert "KmsKeyId" in group.properties, group.logical_id
        assert "RetentionInDays" in group.properties, group.logical_id


def test_every_key_rotates(assembly: Assembly) -> None:
    keys = list(assembly.resources("AWS::KMS::Key"))
    assert len(keys) == 6
    assert all(key.properties["EnableKeyRotation"] for key in keys)


def test_nothing_routes_to_the_internet(assembly: Assembly) -> None:
    forbidden = {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EIP"}
    assert not [r for r in assembly.resources() if r.type in forbidden]
    for group in assembly.resources("AWS::EC2::SecurityGroup"):
        assert not group.properties.get("SecurityGroupIngress")


def test_what_runs_models_sits_in_one_isolated_subnet_per_zone(assembly: Assembly) -> None:
    zones = [s.properties["AvailabilityZone"] for s in assembly.resources("AWS::EC2::Subnet")]
    assert len(zones) == len(set(zones)) >= 2
    function = assembly.function(f"inference-{assembly.environment}-file-type")
    model = assembly.one("AWS::SageMaker::Model")
    assert len(function.properties["VpcConfig"]["SubnetIds"]) == len(zones)
    assert len(model.properties["VpcConfig"]["Subnets"]) == len(zones)
    assert model.properties["EnableNetworkIsolation"] is True


def test_what_cloudformation_must_replace_has_no_name(assembly: Assembly) -> None:
    assert "ModelName" not in assembly.one("AWS::SageMaker::Model").properties
    assert "EndpointConfigName" not in assembly.one("AWS::SageMaker::EndpointConfig").properties


def test_no_role_may_do_everything(assembly: Assembly) -> None:
    for policy in assembly.resources("AWS::IAM::Policy"):
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [a for a in actions if a.endswith("*")], (policy.stack, policy.logical_id, actions)


def test_only_policies_that_have_no_resource_level_rights_name_every_resource(assembly: Assembly) -> None:
    # Actions for which AWS offers no resource, by the service authorization reference.
    without_resource = re.compile(
        r"xray:(Put|GetSampling).*|ec2:.*NetworkInterface.*|ec2:Describe.*|ec2:(Una|A)ssignPrivateIpAddresses"
        r"|cloudwatch:PutMetricData|cloudwatch:DescribeAlarms|ecr:GetAuthorizationToken"
        r"|sagemaker:ListModels|sagemaker:ListEndpointConfigs|logs:GetQueryResults"
        # What Step Functions needs to set its log up.
        r"|logs:\w+LogDeliver\w+|logs:PutResourcePolicy|logs:DescribeResourcePolicies|logs:DescribeLogGroups"
    )
    for policy in assembly.resources("AWS::IAM::Policy"):
        for statement in policy.properties["PolicyDocument"]["Statement"]:
            if statement["Resource"] == "*":
                actions = statement["Action"]
                for action in actions if isinstance(actions, list) else [actions]:
                    assert without_resource.fullmatch(action), (policy.stack, action)


def test_no_secret_is_in_a_template(assembly: Assembly) -> None:
    templates = copy.deepcopy(assembly.templates)
    for template in templates.values():
        for resource in template["Resources"].values():
            if resource["Type"] == "AWS::SecretsManager::Secret":
                # CloudFormation takes it from Cognito: the one way in which a secret may be named.
                parts = resource["Properties"]["SecretString"]["Fn::Join"][1]
                read = [p for p in parts if isinstance(p, dict) and "ClientSecret" in str(p)]
                assert [list(part) for part in read] == [["Fn::GetAtt"]]
                parts.remove(read[0])
    text = json.dumps(templates)
    assert not re.search(r"AKIA[0-9A-Z]{16}|ClientSecret|-----BEGIN", text)


def test_production_keeps_its_data_and_its_stacks(prod: Assembly, dev: Assembly) -> None:
    kept = {"AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Cognito::UserPool", "AWS::Logs::LogGroup"}
    for resource in prod.resources():
        if resource.type in kept:
            assert resource.raw["DeletionPolicy"] == "Retain", resource.logical_id
    assert dev.templates.keys() == {name.replace("prod", "dev") for name in prod.templates}


def test_two_syntheses_are_equal_byte_for_byte(tmp_path: Path) -> None:
    # Of dev: that local's are, is what makes a second deployment of it change nothing (tests/integration).
    folders = [tmp_path / "first", tmp_path / "second"]
    # Neither credentials nor Docker: only what Python and Node themselves need.
    keep = {"HOME", "LANG", "TMPDIR", "UV_CACHE_DIR"}
    variables = {k: v for k, v in os.environ.items() if k in keep}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    for folder in folders:
        cdk = ROOT / "node_modules" / ".bin" / "cdk"
        done = subprocess.run(
            [cdk, "synth", "--quiet", "--context", "env=dev", "--output", folder],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=variables,
        )
        assert done.returncode == 0, done.stderr
    first, second = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert first.keys() == second.keys()
    assert not [str(name) for name, content in first.items() if content != second[name]]
    shutil.rmtree(tmp_path)
