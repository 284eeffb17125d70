"""What buckets promise beyond being private: whose keys, who writes, and how long what is kept."""

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from catalog.data import Payloads
from catalog.environment import Environment
from stacks.storage import StorageStack
from tests.assembly import Assembly, Resource


def bucket(assembly: Assembly, purpose: str) -> Resource:
    stack = "audit" if purpose == "audit" else "storage"
    name = f"inference-{assembly.environment}-{purpose}-"
    [found] = [
        b
        for b in assembly.resources("AWS::S3::Bucket")
        if b.stack.endswith(stack) and str(b.properties["BucketName"]).find(name) >= 0
    ]
    return found


def statement(assembly: Assembly, purpose: str, sid: str) -> dict[str, Any]:
    of = bucket(assembly, purpose)
    [policy] = [
        p
        for p in assembly.resources("AWS::S3::BucketPolicy")
        if (p.stack, p.properties["Bucket"]) == (of.stack, {"Ref": of.logical_id})
    ]
    found = [s for s in policy.properties["PolicyDocument"]["Statement"] if s.get("Sid") == sid]
    assert len(found) == 1, (purpose, sid)
    result: dict[str, Any] = found[0]
    return result


def rules(of: Resource) -> dict[str, dict[str, Any]]:
    return {rule["Id"]: rule for rule in of.properties["LifecycleConfiguration"]["Rules"]}


@pytest.mark.parametrize("purpose", ["models", "data"])
def test_an_upload_with_another_key_than_the_buckets_is_refused(assembly: Assembly, purpose: str) -> None:
    of = bucket(assembly, purpose)
    [encryption] = of.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    key = encryption["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert encryption["BucketKeyEnabled"] is True
    assert encryption["BlockedEncryptionTypes"] == {"EncryptionType": ["SSE-C"]}
    refusal = statement(assembly, purpose, "RefuseOtherKeys")
    assert (refusal["Effect"], refusal["Action"], refusal["Principal"]) == (
        "Deny",
        "s3:PutObject",
        {"AWS": "*"},
    )
    # Only an upload that says something about encryption; of those, all but the ones with this key.
    assert refusal["Condition"] == {
        "Null": {"s3:x-amz-server-side-encryption": "false"},
        "StringNotEquals": {"s3:x-amz-server-side-encryption-aws-kms-key-id": key},
    }


@pytest.mark.parametrize(("purpose", "service"), [("access-logs", "logging.s3"), ("audit", "cloudtrail")])
def test_only_the_service_that_keeps_a_record_writes_it(
    assembly: Assembly, purpose: str, service: str
) -> None:
    condition = statement(assembly, purpose, "RefuseOtherWriters")["Condition"]
    writers = condition["StringNotEquals"]["aws:PrincipalServiceName"]
    assert f"{service}.amazonaws.com" in ([writers] if isinstance(writers, str) else writers)


def test_buckets_tell_of_new_objects_without_a_custom_resource(assembly: Assembly) -> None:
    for purpose in ("models", "data"):
        notifications = bucket(assembly, purpose).properties["NotificationConfiguration"]
        assert notifications == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert not list(assembly.resources("Custom::S3BucketNotifications"))


def test_outputs_and_captures_cool_down_by_prefix_and_inputs_do_not(prod: Assembly) -> None:
    of = bucket(prod, "data")
    found = rules(of)
    for prefix in ("outputs", "captures"):
        assert found[prefix]["Prefix"] == f"{prefix}/"
        assert found[prefix]["Transitions"] == [
            {"StorageClass": "STANDARD_IA", "TransitionInDays": 30},
            {"StorageClass": "GLACIER_IR", "TransitionInDays": 90},
        ]
        assert "ExpirationInDays" not in found[prefix]
    assert "inputs" not in found
    lifecycle = of.properties["LifecycleConfiguration"]
    assert lifecycle["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


def test_payloads_end_when_configuration_says_so(dev_environment: Environment) -> None:
    retention = dev_environment.retention.model_copy(
        update={"payloads": Payloads(infrequent_access_days=40, archive_days=70, delete_days=400)}
    )
    stack = StorageStack(cdk.App(), dev_environment.model_copy(update={"retention": retention}))
    resources = Template.from_stack(stack).find_resources("AWS::S3::Bucket")
    [data] = [r for name, r in resources.items() if name.startswith("Data")]
    found = {rule["Id"]: rule for rule in data["Properties"]["LifecycleConfiguration"]["Rules"]}
    assert [t["TransitionInDays"] for t in found["captures"]["Transitions"]] == [40, 70]
    assert {found[p]["ExpirationInDays"] for p in ("inputs", "outputs", "captures")} == {400}
    assert "Transitions" not in found["inputs"]


def test_only_artifacts_that_carry_the_tag_expire_and_uploads(assembly: Assembly) -> None:
    found = rules(bucket(assembly, "models"))
    ending = {name: rule for name, rule in found.items() if "ExpirationInDays" in rule}
    assert ending.keys() == {"incoming", "retired"}
    assert ending["incoming"]["Prefix"] == "incoming/"
    assert ending["retired"]["TagFilters"] == [{"Key": "inference:retired", "Value": "expiring"}]


def test_what_is_deleted_or_abandoned_goes_for_good_after_its_time(assembly: Assembly) -> None:
    buckets = [
        b for b in assembly.resources("AWS::S3::Bucket") if b.stack.split("-")[-1] in ("storage", "audit")
    ]
    assert len(buckets) == 4
    for of in buckets:
        found = rules(of)
        assert found["deleted"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
        assert found["deleted"]["ExpiredObjectDeleteMarker"] is True
        assert found["abandoned-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rules(bucket(assembly, "access-logs"))["expire"]["ExpirationInDays"] == 400
