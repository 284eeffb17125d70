"""Reading and writing what a KMS key encrypts takes rights on the key, of the caller and of the key's policy.

Nothing is really encrypted here: the key decides who may read and write, as on AWS.
Sources: docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html and the permissions of each
operation in the S3 API reference; AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html;
sns/latest/dg/sns-key-management.html; secretsmanager/latest/userguide/security-encryption.html;
AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from ministack.core import responses
from ministack.services import cloudwatch_logs, kms, s3, secretsmanager, sns, sqs

from local_aws import roles
from local_aws.authorization import Request, Right, takes_also
from local_aws.cloudformation import extend
from local_aws.wire import Json

ENCRYPT, DECRYPT = "kms:GenerateDataKey", "kms:Decrypt"

_ALGORITHM = "x-amz-server-side-encryption"
_KEY_HEADER = "x-amz-server-side-encryption-aws-kms-key-id"
# Requests about an object that touch none of its bytes.
_ABOUT = ("acl", "tagging", "retention", "legal-hold", "torrent", "restore", "attributes")


def install() -> None:
    takes_also("s3", _object_rights)
    takes_also("sqs", _message_rights)
    takes_also("sns", _publish_rights)
    takes_also("secretsmanager", _secret_rights)
    _encrypt_with_the_key_of_s3()
    extend("AWS::S3::Bucket", after=_default_encryption)
    extend("AWS::SNS::Topic", after=_topic_encryption)
    _check_keys_of_log_groups()


def _rights(service: str, key: str, actions: Iterable[str], context: Json) -> Iterator[Right]:
    """The rights on a key that a call through `service` takes; `context` is its encryption context."""
    record = kms._resolve_key(key)
    conditions = {
        "kms:ViaService": f"{service}.{responses.get_region()}.amazonaws.com",
        "kms:CallerAccount": responses.get_account_id(),
        **{f"kms:EncryptionContext:{name}": str(value) for name, value in context.items()},
    }
    for action in actions:
        yield Right(action, record["Arn"] if record else key, conditions)


# S3


def _object_rights(request: Request) -> Iterator[Right]:
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    if not key or any(name in request.query for name in _ABOUT):
        return
    upload = _first(request.query, "uploadId")
    if request.method == "GET" and not upload:
        yield from _decrypt(bucket, key, _first(request.query, "versionId"))
    # Without checksums, HeadObject reads metadata only.
    if request.method == "HEAD" and request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        yield from _decrypt(bucket, key, _first(request.query, "versionId"))
    if request.method == "PUT" and "x-amz-copy-source" in request.headers:
        source = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("?versionId=")
        source_bucket, _, source_key = source[0].partition("/")
        yield from _decrypt(source_bucket, source_key, source[2])
    if request.method == "PUT" or (request.method == "POST" and "uploads" in request.query):
        yield from _on_key(bucket, key, _write_key(request, bucket, upload), ENCRYPT)
    if request.method == "POST" and upload:
        yield from _on_key(bucket, key, _upload_key(upload), DECRYPT)


def _decrypt(bucket: str, key: str, version: str) -> Iterator[Right]:
    record: Json = (s3._buckets.get(bucket) or {}).get("objects", {}).get(key) or {}
    if version and record.get("version_id") != version:
        versions = s3._object_versions.get((bucket, key), [])
        found = [one for one in versions if one["version_id"] == version]
        record = s3._object_record_from_version(found[0]) if found else {}
    yield from _on_key(bucket, key, s3._stored_sse_headers(record).get(_KEY_HEADER), DECRYPT)


def _write_key(request: Request, bucket: str, upload: str) -> str | None:
    if upload:
        return _upload_key(upload)
    if request.headers.get(_ALGORITHM):
        given: str | None = request.headers.get(_KEY_HEADER)
        return given
    default: str | None = s3._bucket_default_sse_headers(bucket).get(_KEY_HEADER)
    return default


def _upload_key(upload: str) -> str | None:
    key: str | None = s3._stored_sse_headers(s3._multipart_uploads.get(upload) or {}).get(_KEY_HEADER)
    return key


def _on_key(bucket: str, key: str, kms_key: str | None, action: str) -> Iterator[Right]:
    # Without a key of the account's own it is S3's or the account's aws/s3, which every caller may use.
    if kms_key:
        shared = "<BucketKeyEnabled>true<" in (s3._bucket_encryption.get(bucket) or "")
        about = f"arn:aws:s3:::{bucket}" + ("" if shared else f"/{key}")
        yield from _rights("s3", kms_key, [action], {"aws:s3:arn": about})


def _first(query: Json, name: str) -> str:
    value: Any = query.get(name) or ""
    return str(value[0] if isinstance(value, list) else value)


def _encrypt_with_the_key_of_s3() -> None:
    """`aws:kms` without a key means the account's key aws/s3, which MiniStack refuses for want of one."""
    known = s3._resolve_sse_write_headers

    def resolve(headers: Json, bucket: str) -> Any:
        asked = {name for name in headers if name.startswith("x-amz-server-side-encryption")}
        if asked == {_ALGORITHM} and headers[_ALGORITHM] == "aws:kms":
            return {_ALGORITHM: "aws:kms"}, None
        return known(headers, bucket)

    s3._resolve_sse_write_headers = resolve


def _default_encryption(physical_id: str, properties: Json) -> None:
    """A bucket's `BucketEncryption`, which MiniStack's CloudFormation leaves out."""
    rules = (properties.get("BucketEncryption") or {}).get("ServerSideEncryptionConfiguration") or []
    if not rules:
        s3._bucket_encryption.pop(physical_id, None)
        return
    default = rules[0].get("ServerSideEncryptionByDefault") or {}
    key = default.get("KMSMasterKeyID")
    s3._bucket_encryption[physical_id] = (
        '<ServerSideEncryptionConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>'
        "<ApplyServerSideEncryptionByDefault>"
        f"<SSEAlgorithm>{escape(default.get('SSEAlgorithm', 'AES256'))}</SSEAlgorithm>"
        + (f"<KMSMasterKeyID>{escape(key)}</KMSMasterKeyID>" if key else "")
        + "</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{str(rules[0].get('BucketKeyEnabled', False)).lower()}</BucketKeyEnabled>"
        "</Rule></ServerSideEncryptionConfiguration>"
    )


# Messages and secrets


def _message_rights(request: Request) -> Iterator[Right]:
    name = str(request.json().get("QueueUrl", "")).rpartition("/")[2]
    actions = {
        "SendMessage": [ENCRYPT, DECRYPT],
        "SendMessageBatch": [ENCRYPT, DECRYPT],
        "ReceiveMessage": [DECRYPT],
    }.get(request.operation)
    if actions:
        yield from queue_rights(f"arn:aws:sqs:{request.region}:{request.account}:{name}", actions)


def _publish_rights(request: Request) -> Iterator[Right]:
    parameters = parse_qs(request.body.decode("utf-8", "replace"))
    if _first(parameters, "Action") in ("Publish", "PublishBatch"):
        topic = _first(parameters, "TopicArn")
        yield from topic_rights(topic)


def _topic_encryption(physical_id: str, properties: Json) -> None:
    """A topic's `KmsMasterKeyId`, which MiniStack's CloudFormation leaves out."""
    attributes = sns._topics[physical_id]["attributes"]
    attributes.pop("KmsMasterKeyId", None)
    if properties.get("KmsMasterKeyId"):
        attributes["KmsMasterKeyId"] = properties["KmsMasterKeyId"]


def topic_rights(topic: str) -> Iterator[Right]:
    """The rights on its key that publishing to an encrypted topic takes."""
    key = (sns._topics.get(topic) or {}).get("attributes", {}).get("KmsMasterKeyId")
    if key:
        yield from _rights("sns", key, [ENCRYPT, DECRYPT], {"aws:sns:topicArn": topic})


def queue_rights(queue_arn: str, actions: Sequence[str] = (ENCRYPT, DECRYPT)) -> Iterator[Right]:
    """The rights on its key that using an encrypted queue takes; sending to it, unless said otherwise."""
    key = (sqs._queue_by_arn(queue_arn) or {}).get("attributes", {}).get("KmsMasterKeyId")
    if key:
        yield from _rights("sqs", key, actions, {"aws:sqs:arn": queue_arn})


def _secret_rights(request: Request) -> Iterator[Right]:
    parameters = request.json()
    actions = {
        "GetSecretValue": [DECRYPT],
        "CreateSecret": [ENCRYPT, DECRYPT],
        "PutSecretValue": [ENCRYPT, DECRYPT],
        "UpdateSecret": [ENCRYPT, DECRYPT],
    }.get(request.operation)
    _, secret = secretsmanager._resolve(parameters.get("SecretId") or parameters.get("Name") or "")
    key = parameters.get("KmsKeyId") or (secret or {}).get("KmsKeyId")
    if actions and key:
        yield from _rights("secretsmanager", key, actions, {"SecretARN": (secret or {}).get("ARN", "")})


# Log groups: it is the service that encrypts, so the key's policy has to admit it for this group


def _check_keys_of_log_groups() -> None:
    create = cloudwatch_logs._create_log_group

    def create_log_group(request: Json) -> Any:
        message = _key_problem(request.get("kmsKeyId"), request.get("logGroupName", ""))
        if message:
            return responses.error_response_json("InvalidParameterException", message, 400)
        return create(request)

    cloudwatch_logs._create_log_group = create_log_group

    def check(properties: Json) -> None:
        message = _key_problem(properties.get("KmsKeyId"), properties.get("LogGroupName", ""))
        if message:
            raise ValueError(message)

    extend("AWS::Logs::LogGroup", check=check)


def _key_problem(key: str | None, group: str) -> str | None:
    if not key:
        return None
    account, region = responses.get_account_id(), responses.get_region()
    arn, record = f"arn:aws:logs:{region}:{account}:log-group:{group}", kms._resolve_key(key)
    context = {"kms:EncryptionContext:aws:logs:arn": arn}
    if record and all(
        roles.service_allowed(
            record["Policy"],
            f"logs.{region}.amazonaws.com",
            action,
            record["Arn"],
            account=account,
            context=context,
        )
        for action in (ENCRYPT, DECRYPT, "kms:Encrypt", "kms:DescribeKey")
    ):
        return None
    return f"The specified KMS key does not exist or is not allowed to be used with Arn '{arn}'"
