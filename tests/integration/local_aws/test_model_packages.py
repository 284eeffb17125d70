"""The Model Registry on the wire: versions in a group, their approval, and the events of both."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import IMAGE, Embedded, unique, until
from tests.integration.local_aws.shapes import violations

SPECIFICATION = {
    "Containers": [
        {
            "Image": IMAGE,
            "ModelDataSource": {
                "S3DataSource": {
                    "S3Uri": "s3://models/probe/1/",
                    "S3DataType": "S3Prefix",
                    "CompressionType": "None",
                }
            },
        }
    ],
    "SupportedContentTypes": ["application/json"],
    "SupportedResponseMIMETypes": ["application/json"],
}


@pytest.fixture
def group(aws: Embedded) -> str:
    name = unique("Group")
    aws.client("sagemaker").create_model_package_group(ModelPackageGroupName=name)
    return name


def register(aws: Embedded, group: str, **more: Any) -> str:
    """The ARN of a new package in the group."""
    created = aws.client("sagemaker").create_model_package(
        ModelPackageGroupName=group, InferenceSpecification=SPECIFICATION, **more
    )
    arn: str = created["ModelPackageArn"]
    return arn


def test_every_answer_is_one_that_the_model_allows(aws: Embedded) -> None:
    sagemaker, group = aws.client("sagemaker"), unique("Group")
    answers = {
        "CreateModelPackageGroup": sagemaker.create_model_package_group(
            ModelPackageGroupName=group, ModelPackageGroupDescription="Ours"
        ),
        "CreateModelPackage": (
            created := sagemaker.create_model_package(
                ModelPackageGroupName=group,
                InferenceSpecification=SPECIFICATION,
                CustomerMetadataProperties={"team": "search", "old": "1"},
            )
        ),
    }
    arn = created["ModelPackageArn"]
    answers |= {
        "UpdateModelPackage": sagemaker.update_model_package(
            ModelPackageArn=arn,
            ModelApprovalStatus="Approved",
            ApprovalDescription="Better recall",
            CustomerMetadataProperties={"stage": "live"},
            CustomerMetadataPropertiesToRemove=["old"],
            ModelLifeCycle={"Stage": "prod", "StageStatus": "Released"},
        ),
        "DescribeModelPackage": sagemaker.describe_model_package(ModelPackageName=arn),
        "ListModelPackages": sagemaker.list_model_packages(ModelPackageGroupName=group),
        "DescribeModelPackageGroup": sagemaker.describe_model_package_group(ModelPackageGroupName=group),
        "ListModelPackageGroups": sagemaker.list_model_package_groups(NameContains=group),
    }
    faults = [fault for name, answer in answers.items() for fault in violations("sagemaker", name, answer)]
    # A package of a group has no name, which the model demands; the SageMaker SDK asks for it again by this.
    [odd] = faults
    assert odd.startswith(f"DescribeModelPackage.ModelPackageName is '{group}/1'")
    described = answers["DescribeModelPackage"]
    assert described["InferenceSpecification"] == SPECIFICATION
    assert described["CustomerMetadataProperties"] == {"team": "search", "stage": "live"}
    assert (described["ModelApprovalStatus"], described["ApprovalDescription"]) == (
        "Approved",
        "Better recall",
    )
    assert described["ModelLifeCycle"] == {"Stage": "prod", "StageStatus": "Released"}
    assert described["LastModifiedBy"]["IamIdentity"]["Arn"].endswith(":root")
    (listed,) = answers["ListModelPackages"]["ModelPackageSummaryList"]
    assert (listed["ModelPackageVersion"], listed["ModelApprovalStatus"]) == (1, "Approved")
    assert answers["DescribeModelPackageGroup"]["ModelPackageGroupDescription"] == "Ours"


def test_versions_count_up_and_a_number_is_never_given_twice(aws: Embedded, group: str) -> None:
    sagemaker = aws.client("sagemaker")
    first, second = register(aws, group), register(aws, group)
    assert (first.rpartition("/")[2], second.rpartition("/")[2]) == ("1", "2")
    assert second.endswith(f":model-package/{group.lower()}/2")
    sagemaker.delete_model_package(ModelPackageName=second)
    assert register(aws, group).rpartition("/")[2] == "3"
    with pytest.raises(botocore.exceptions.ClientError, match="does not exist"):
        sagemaker.describe_model_package(ModelPackageName=second)
    with pytest.raises(botocore.exceptions.ClientError, match="ConflictException"):
        sagemaker.delete_model_package_group(ModelPackageGroupName=group)


def test_lists_hold_a_groups_packages_of_the_status_that_is_asked_for(aws: Embedded, group: str) -> None:
    sagemaker = aws.client("sagemaker")
    register(aws, group)
    approved = register(aws, group, ModelApprovalStatus="Approved")
    found = sagemaker.list_model_packages(ModelPackageGroupName=group, ModelApprovalStatus="Approved")
    assert [one["ModelPackageArn"] for one in found["ModelPackageSummaryList"]] == [approved]
    first = sagemaker.list_model_packages(ModelPackageGroupName=group, MaxResults=1)
    rest = sagemaker.list_model_packages(ModelPackageGroupName=group, NextToken=first["NextToken"])
    assert len(first["ModelPackageSummaryList"] + rest["ModelPackageSummaryList"]) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ModelPackageGroupName": "nowhere"}, "model-package-group/nowhere does not exist"),
        ({"ModelPackageName": "alone"}, "ModelPackageGroupName must be given"),
        ({"ModelPackageGroupName": "g", "ModelApprovalStatus": "Perhaps"}, "enum value set"),
    ],
)
def test_what_cannot_be_registered_is_refused(aws: Embedded, more: dict[str, Any], said: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=said):
        aws.client("sagemaker").create_model_package(InferenceSpecification=SPECIFICATION, **more)


def test_registration_and_approval_are_events_that_say_what_changed(aws: Embedded, group: str) -> None:
    events, sqs = aws.client("events"), aws.client("sqs")
    queue = sqs.create_queue(QueueName=unique("heard"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = unique("packages")
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [group]},
    }
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    package = register(aws, group)
    aws.client("sagemaker").update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    heard: list[dict[str, Any]] = []

    def both() -> bool:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        heard.extend(json.loads(message["Body"]) for message in messages)
        return len(heard) == 2

    until(both)
    by_status = {event["detail"]["ModelApprovalStatus"]: event for event in heard}
    assert "UpdatedModelPackageFields" not in by_status["PendingManualApproval"]["detail"]
    approved = by_status["Approved"]
    assert approved["resources"] == [package]
    assert approved["detail"]["UpdatedModelPackageFields"] == ["ModelApprovalStatus"]
    assert approved["detail"]["InferenceSpecification"]["Containers"][0] == (SPECIFICATION["Containers"][0])


def test_rights_on_packages_are_those_on_their_arns(aws: Embedded, group: str) -> None:
    package = register(aws, group)
    arn = package.rpartition("/")[0]
    reader = aws.user({"Effect": "Allow", "Action": "sagemaker:DescribeModelPackage", "Resource": f"{arn}/*"})
    theirs = aws.client("sagemaker", reader)
    assert theirs.describe_model_package(ModelPackageName=package)["ModelPackageArn"] == package
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        theirs.update_model_package(ModelPackageArn=package, ModelApprovalStatus="Approved")
    approver = aws.user({"Effect": "Allow", "Action": "sagemaker:UpdateModelPackage", "Resource": package})
    aws.client("sagemaker", approver).update_model_package(
        ModelPackageArn=package, ModelApprovalStatus="Approved"
    )
    by = aws.client("sagemaker").describe_model_package(ModelPackageName=package)["LastModifiedBy"]
    assert ":user/" in by["IamIdentity"]["Arn"]
