"""A trail is made only if CloudTrail may write to its bucket and its log group, and encrypt with its key.

Sources: docs.aws.amazon.com/awscloudtrail/latest/userguide/create-s3-bucket-policy-for-cloudtrail.html,
create-kms-key-policy-for-cloudtrail.html and send-cloudtrail-events-to-cloudwatch-logs.html. What is then
delivered: local_aws/trails.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ministack.core.responses import get_account_id, get_region
from ministack.services import cloudtrail, kms, s3

from local_aws import roles
from local_aws.wire import Json, Response

PRINCIPAL = "cloudtrail.amazonaws.com"


def install() -> None:
    for operation in ("CreateTrail", "UpdateTrail"):
        cloudtrail._DISPATCH[operation] = partial(_checked, cloudtrail._DISPATCH[operation])


def _checked(known: Callable[[Json], Response], request: Json) -> Response:
    problem = _problem(request)
    refused: Response | None = cloudtrail._err(*problem) if problem else None
    return refused or known(request)


def _problem(request: Json) -> tuple[str, str] | None:
    """The error's code and message, None if everything is allowed."""
    name = str(request.get("Name", "")).rpartition("/")[2]
    account, region = get_account_id(), get_region()
    trail = f"arn:aws:cloudtrail:{region}:{account}:trail/{name}"
    bucket, key = request.get("S3BucketName"), request.get("KmsKeyId")
    if bucket and not _may_deliver(bucket, request.get("S3KeyPrefix"), trail):
        return (
            "InsufficientS3BucketPolicyException",
            f"Incorrect S3 bucket policy is detected for bucket: {bucket}",
        )
    if key and not _may_encrypt(key, trail):
        return (
            "InsufficientEncryptionPolicyException",
            f"Insufficient permissions to access S3 bucket {bucket} or KMS key {key}.",
        )
    role, group = request.get("CloudWatchLogsRoleArn"), request.get("CloudWatchLogsLogGroupArn")
    if role and group and not _may_log(role, group):
        return (
            "InvalidCloudWatchLogsRoleArnException",
            "Access denied. Verify in IAM that the role has adequate permissions.",
        )
    return None


def _may_deliver(bucket: str, prefix: str | None, trail: str) -> bool:
    arn, policy = f"arn:aws:s3:::{bucket}", s3._bucket_policies.get(bucket)
    logs = "/".join(part for part in (arn, prefix, "AWSLogs", get_account_id(), "CloudTrail/log.gz") if part)
    context = {"aws:SourceArn": trail, "s3:x-amz-acl": "bucket-owner-full-control"}
    return all(
        roles.service_allowed(policy, PRINCIPAL, action, what, account=get_account_id(), context=context)
        for action, what in (("s3:GetBucketAcl", arn), ("s3:PutObject", logs))
    )


def _may_encrypt(key: str, trail: str) -> bool:
    record = kms._resolve_key(key)
    context = {"aws:SourceArn": trail, "kms:EncryptionContext:aws:cloudtrail:arn": trail}
    return record is not None and all(
        roles.service_allowed(
            record["Policy"], PRINCIPAL, action, record["Arn"], account=get_account_id(), context=context
        )
        for action in ("kms:GenerateDataKey", "kms:DescribeKey")
    )


def _may_log(role: str, group: str) -> bool:
    try:
        roles.check_trust(get_account_id(), role, PRINCIPAL)
    except roles.NotAssumable:
        return False
    stream = f"{group.removesuffix(':*')}:log-stream:{get_account_id()}_CloudTrail_{get_region()}"
    return not any(
        roles.refusal(role, "CloudTrail", action, stream)
        for action in ("logs:CreateLogStream", "logs:PutLogEvents")
    )
