"""Trails deliver what they select, metric filters count it, and locked objects stay."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import Embedded, allow, trust, unique, until


@pytest.fixture(scope="module")
def trail(aws: Embedded) -> Iterator[str]:
    """The name of a trail, of its bucket, which locks, and of its log group: all the same.

    It has management events, and data events of the bucket called `models` and a prefix in it.
    """
    name, logs = unique("trail"), aws.client("logs")
    bucket = {"BucketName": name, "VersioningConfiguration": {"Status": "Enabled"}} | {
        "ObjectLockEnabled": True,
        "ObjectLockConfiguration": {
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    }
    aws.deploy(name, {"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": bucket}}})
    admitted = {"Effect": "Allow", "Principal": {"Service": "cloudtrail.amazonaws.com"}}
    resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    statement = {**admitted, "Action": ["s3:GetBucketAcl", "s3:PutObject"], "Resource": resources}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    aws.client("s3").put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    logs.create_log_group(logGroupName=name)
    writes = allow("logs:CreateLogStream", "logs:PutLogEvents")
    trails = aws.client("cloudtrail")
    trails.create_trail(
        Name=name,
        S3BucketName=name,
        CloudWatchLogsLogGroupArn=f"arn:aws:logs:us-east-1:000000000000:log-group:{name}:*",
        CloudWatchLogsRoleArn=aws.role(writes, trust=trust("cloudtrail.amazonaws.com")),
    )
    objects = {
        "eventCategory": ["Data"],
        "resources.type": ["AWS::S3::Object"],
        "resources.ARN": ["arn:aws:s3:::models/probe/"],
    }
    selectors = [
        {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
        {
            "FieldSelectors": [
                {"Field": field, "StartsWith" if field == "resources.ARN" else "Equals": wanted}
                for field, wanted in objects.items()
            ]
        },
    ]
    trails.put_event_selectors(TrailName=name, AdvancedEventSelectors=selectors)
    trails.start_logging(Name=name)
    yield name
    trails.delete_trail(Name=name)


def lines(aws: Embedded, trail: str, pattern: str) -> list[dict[str, Any]]:
    found = aws.client("logs").filter_log_events(logGroupName=trail, filterPattern=pattern)["events"]
    return [json.loads(event["message"]) for event in found]


def test_a_trail_writes_the_events_that_it_selects_into_its_log_group(aws: Embedded, trail: str) -> None:
    s3, kms = aws.client("s3"), aws.client("kms")
    s3.get_object(Bucket="models", Key="probe/1/model.onnx")
    s3.put_object(Bucket="models", Key="elsewhere", Body=b"")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)

    [disabled] = lines(aws, trail, '{ $.eventName = "DisableKey" }')
    assert disabled["eventCategory"] == "Management"
    assert disabled["userIdentity"]["type"] == "Root"
    [read] = lines(aws, trail, '{ $.eventName = "GetObject" }')
    assert read["resources"] == [{"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::models/probe/1/model.onnx"}]
    assert lines(aws, trail, '{ $.eventName = "PutObject" }') == []


def test_a_metric_filter_counts_matching_lines(aws: Embedded, trail: str) -> None:
    logs, cloudwatch = aws.client("logs"), aws.client("cloudwatch")
    logs.put_metric_filter(
        logGroupName=trail,
        filterName="users",
        filterPattern='{ ($.eventSource = "iam.amazonaws.com") && ($.readOnly IS FALSE) }',
        metricTransformations=[
            {"metricNamespace": trail, "metricName": "Changes", "metricValue": "1"},
            {
                "metricNamespace": trail,
                "metricName": "ByName",
                "metricValue": "1",
                "dimensions": {"Name": "$.eventName"},
            },
        ],
    )
    cloudwatch.put_metric_alarm(
        AlarmName=trail,
        Namespace=trail,
        MetricName="Changes",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    aws.client("iam").list_users()
    assert cloudwatch.list_metrics(Namespace=trail)["Metrics"] == []
    aws.client("iam").create_user(UserName=unique("user"))
    found = {metric["MetricName"]: metric for metric in cloudwatch.list_metrics(Namespace=trail)["Metrics"]}
    assert found["ByName"]["Dimensions"] == [{"Name": "Name", "Value": "CreateUser"}]
    assert found.keys() == {"ByName", "Changes"}
    until(lambda: cloudwatch.describe_alarms(AlarmNames=[trail])["MetricAlarms"][0]["StateValue"] == "ALARM")


def test_a_filter_pattern_that_cannot_be_read_is_refused(aws: Embedded, trail: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidParameterException"):
        aws.client("logs").put_metric_filter(
            logGroupName=trail,
            filterName="broken",
            filterPattern="{ $.eventName = }",
            metricTransformations=[{"metricNamespace": "n", "metricName": "m", "metricValue": "1"}],
        )


def test_records_reach_the_bucket_and_cannot_be_deleted_from_one_that_locks(
    aws: Embedded, trail: str
) -> None:
    s3, began = aws.client("s3"), time.time()

    def delivered() -> list[dict[str, Any]]:
        aws.client("kms").list_keys()  # an object is written when a later event comes
        listed = s3.list_objects_v2(Bucket=trail, Prefix="AWSLogs/000000000000/CloudTrail/")
        found: list[dict[str, Any]] = listed.get("Contents", [])
        return found

    until(delivered)
    key = delivered()[0]["Key"]
    found = s3.get_object(Bucket=trail, Key=key)
    records = json.loads(gzip.decompress(found["Body"].read()))["Records"]
    assert {record["recipientAccountId"] for record in records} == {"000000000000"}
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert found["ObjectLockRetainUntilDate"].timestamp() > began + 86_000
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=trail, Key=key, VersionId=found["VersionId"])
