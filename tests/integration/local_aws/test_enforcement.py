"""What is enforced besides the caller's right to call: keys, execution roles, the network, passed roles."""

from __future__ import annotations

import json
import time
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import BUCKET, OPERATE, Embedded, allow, trust, unique, until

ACCOUNT = "000000000000"
LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
TRACES = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")
JOIN = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)


TRUST_LAMBDA = trust("lambda.amazonaws.com")


def key(aws: Embedded, *statements: dict[str, Any]) -> str:
    """The ARN of a KMS key with this policy; without one, its account's IAM decides."""
    mine = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*"}
    policy = {"Version": "2012-10-17", "Statement": list(statements) or [{**mine, "Resource": "*"}]}
    created = aws.client("kms").create_key(Policy=json.dumps(policy))
    arn: str = created["KeyMetadata"]["Arn"]
    return arn


def encrypted_bucket(aws: Embedded, key_arn: str) -> str:
    """A bucket, made by CloudFormation, whose objects this key encrypts."""
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key_arn}
    rules = [{"ServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
    properties = {"BucketEncryption": {"ServerSideEncryptionConfiguration": rules}}
    name = unique("bucket")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name, **properties}}
    described = aws.deploy(name, {"Resources": {"Bucket": bucket}})
    assert described["StackStatus"] == "CREATE_COMPLETE"
    return name


# Keys


def test_objects_under_a_key_take_rights_on_it_for_reading_and_for_writing(aws: Embedded) -> None:
    key_arn = key(aws)
    bucket = encrypted_bucket(aws, key_arn)
    aws.client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    objects = allow("s3:GetObject", "s3:PutObject", resource=f"arn:aws:s3:::{bucket}/*")
    reader = aws.client("s3", aws.user(objects, allow("kms:Decrypt", resource=key_arn)))
    writer = aws.client("s3", aws.user(objects, allow("kms:GenerateDataKey", resource=key_arn)))

    assert reader.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
    writer.put_object(Bucket=bucket, Key="b", Body=b"2")
    with pytest.raises(botocore.exceptions.ClientError, match=f"kms:Decrypt on resource: {key_arn}"):
        writer.get_object(Bucket=bucket, Key="a")
    for refused in (
        lambda: reader.put_object(Bucket=bucket, Key="c", Body=b"3"),
        lambda: reader.create_multipart_upload(Bucket=bucket, Key="c"),
        lambda: reader.copy_object(Bucket=bucket, Key="c", CopySource=f"{bucket}/a"),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied.*kms:GenerateDataKey"):
            refused()


def test_that_an_object_is_missing_is_told_to_who_may_list_and_denied_to_others(aws: Embedded) -> None:
    objects = allow("s3:GetObject", resource=f"arn:aws:s3:::{BUCKET}/*")
    blind = aws.client("s3", aws.user(objects))
    seeing = aws.client("s3", aws.user(objects, allow("s3:ListBucket", resource=f"arn:aws:s3:::{BUCKET}")))
    for client, code, status in ((blind, "AccessDenied", "403"), (seeing, "NoSuchKey", "404")):
        with pytest.raises(botocore.exceptions.ClientError, match=code):
            client.get_object(Bucket=BUCKET, Key="missing")
        with pytest.raises(botocore.exceptions.ClientError, match=status):
            client.head_object(Bucket=BUCKET, Key="missing")


def test_a_right_on_a_key_may_be_bound_to_the_service_and_to_the_bucket(aws: Embedded) -> None:
    key_arn = key(aws)
    bucket = encrypted_bucket(aws, key_arn)
    aws.client("s3").put_object(Bucket=bucket, Key="a", Body=b"1")
    for name, value, allowed in (
        ("kms:ViaService", "s3.us-east-1.amazonaws.com", True),
        ("kms:ViaService", "sqs.us-east-1.amazonaws.com", False),
        ("kms:EncryptionContext:aws:s3:arn", f"arn:aws:s3:::{bucket}", True),
        ("kms:EncryptionContext:aws:s3:arn", "arn:aws:s3:::another", False),
    ):
        right = allow("kms:Decrypt", resource=key_arn, StringEquals={name: value})
        reader = aws.client("s3", aws.user(allow("s3:GetObject"), right))
        if allowed:
            assert reader.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
        else:
            with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
                reader.get_object(Bucket=bucket, Key="a")


def test_a_key_policy_that_does_not_delegate_admits_nobody_else(aws: Embedded) -> None:
    owner = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/owner"}
    closed = {"Effect": "Allow", "Principal": owner, "Action": "kms:*", "Resource": "*"}
    bucket = encrypted_bucket(aws, key(aws, closed))
    stranger = aws.client("s3", aws.user(allow("s3:*"), allow("kms:*")))
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied.*kms:GenerateDataKey"):
        stranger.put_object(Bucket=bucket, Key="a", Body=b"1")


def test_encrypted_queues_and_secrets_take_rights_on_their_key(aws: Embedded) -> None:
    key_arn, name = key(aws), unique("name")
    queue = aws.client("sqs").create_queue(QueueName=name, Attributes={"KmsMasterKeyId": key_arn})["QueueUrl"]
    aws.client("secretsmanager").create_secret(Name=name, SecretString="s", KmsKeyId=key_arn)
    services = [allow("sqs:*"), allow("secretsmanager:*")]
    decrypts = aws.user(*services, allow("kms:Decrypt", resource=key_arn))
    without = aws.user(*services)

    secrets = aws.client("secretsmanager", decrypts)
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "s"
    aws.client("sqs", decrypts).receive_message(QueueUrl=queue)
    for refused, right in (
        (
            lambda: aws.client("sqs", decrypts).send_message(QueueUrl=queue, MessageBody="m"),
            "GenerateDataKey",
        ),
        (lambda: aws.client("sqs", without).receive_message(QueueUrl=queue), "Decrypt"),
        (lambda: aws.client("secretsmanager", without).get_secret_value(SecretId=name), "Decrypt"),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match=f"kms:{right}"):
            refused()


def test_a_topic_that_cloudformation_makes_takes_rights_on_its_key(aws: Embedded) -> None:
    name, key_arn = unique("topic"), key(aws)
    properties = {"TopicName": name, "KmsMasterKeyId": key_arn}
    stack = aws.deploy(name, {"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": properties}}})
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    topic = f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}"
    publishes, encrypts = allow("sns:Publish", resource=topic), allow("kms:GenerateDataKey", "kms:Decrypt")
    aws.client("sns", aws.user(publishes, encrypts)).publish(TopicArn=topic, Message="m")
    with pytest.raises(botocore.exceptions.ClientError, match="kms:GenerateDataKey"):
        aws.client("sns", aws.user(publishes)).publish(TopicArn=topic, Message="m")


def test_a_log_group_needs_a_key_whose_policy_admits_the_service(aws: Embedded) -> None:
    logs, name = aws.client("logs"), unique("/group")
    with pytest.raises(botocore.exceptions.ClientError, match="not allowed to be used with Arn"):
        logs.create_log_group(logGroupName=name, kmsKeyId=key(aws))
    service = {
        "Effect": "Allow",
        "Principal": {"Service": "logs.us-east-1.amazonaws.com"},
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*", "kms:DescribeKey"],
        "Resource": "*",
        "Condition": {
            "ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:*:*:log-group:{name}"}
        },
    }
    logs.create_log_group(logGroupName=name, kmsKeyId=key(aws, service))


# The event history


def test_a_refused_call_is_in_the_event_history_with_who_what_and_why(aws: Embedded) -> None:
    user = aws.user(allow("s3:GetObject", resource=f"arn:aws:s3:::{BUCKET}/a"))
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        aws.client("s3", user).get_object(Bucket=BUCKET, Key="b")
    found = aws.client("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "Username", "AttributeValue": user["UserName"]}]
    )["Events"]
    [event] = [json.loads(one["CloudTrailEvent"]) for one in found]
    assert (event["eventSource"], event["eventName"]) == ("s3.amazonaws.com", "GetObject")
    assert event["errorCode"] == "AccessDenied"
    assert "not authorized to perform: s3:GetObject" in event["errorMessage"]
    assert event["userIdentity"]["arn"] == f"arn:aws:iam::{ACCOUNT}:user/{user['UserName']}"


def test_the_event_history_is_read_page_by_page(aws: Embedded) -> None:
    user = aws.user(allow("ssm:GetParameters"))
    ssm = aws.client("ssm", user)
    for number in range(5):
        ssm.get_parameters(Names=[f"/p/{number}"])
    mine = [{"AttributeKey": "Username", "AttributeValue": user["UserName"]}]
    pages = aws.client("cloudtrail").get_paginator("lookup_events")
    found = [
        page["Events"] for page in pages.paginate(LookupAttributes=mine, PaginationConfig={"PageSize": 2})
    ]
    assert [len(page) for page in found] == [2, 2, 1]
    assert len({event["EventId"] for page in found for event in page}) == 5


def test_a_role_says_when_it_was_last_used(aws: Embedded) -> None:
    role = aws.role(allow(*LOGS), trust=TRUST_LAMBDA)
    function, name = aws.function(role, ANSWER), role.rpartition("/")[2]
    get_role = aws.client("iam").get_role
    assert get_role(RoleName=name)["Role"]["RoleLastUsed"] == {}
    aws.invoke(function)
    assert get_role(RoleName=name)["Role"]["RoleLastUsed"]["Region"] == "us-east-1"


def test_what_a_role_is_allowed_and_what_it_is_refused_is_written_down_once(aws: Embedded) -> None:
    role = aws.role(
        {**allow(*LOGS[:2]), "Sid": "Write"}, {**allow("s3:GetObject"), "Sid": "Read"}, trust=TRUST_LAMBDA
    )
    function, name = aws.function(role, ANSWER), role.rpartition("/")[2]
    for _ in range(2):
        aws.invoke(function)
    lines = map(json.loads, (aws.home / "rights.jsonl").read_text().splitlines())
    decided = [(each["action"], each["sid"], each["allowed"]) for each in lines if each["role"] == name]
    assert decided == [(LOGS[0], "Write", True), (LOGS[1], "Write", True), (LOGS[2], "", False)]


# Lambda


def test_a_function_needs_a_role_that_lambda_may_assume(aws: Embedded) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="cannot be assumed by Lambda"):
        aws.function(aws.role(trust=trust("ec2.amazonaws.com")), "")


@pytest.fixture(scope="module")
def subnet(aws: Embedded) -> str:
    """A subnet with a route table of its own, in a new VPC without endpoints."""
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    subnet: str = ec2.create_subnet(VpcId=vpc, CidrBlock="10.99.1.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(SubnetId=subnet, RouteTableId=table)
    return subnet


@pytest.mark.parametrize("missing", JOIN)
def test_a_function_in_a_vpc_needs_a_role_with_every_right_on_interfaces(
    aws: Embedded, subnet: str, missing: str
) -> None:
    role = aws.role(allow(*(action for action in JOIN if action != missing)), trust=TRUST_LAMBDA)
    said = f"role does not have permissions to call {missing.partition(':')[2]} on EC2"
    with pytest.raises(botocore.exceptions.ClientError, match=said):
        aws.function(role, "", VpcConfig={"SubnetIds": [subnet], "SecurityGroupIds": ["sg-1"]})


ANSWER = "def handler(event, context): print('said'); return 'done'"


@pytest.mark.parametrize("missing", [None, "logs:CreateLogStream", "logs:PutLogEvents"])
def test_a_function_writes_no_log_that_its_role_may_not_write(aws: Embedded, missing: str | None) -> None:
    role = aws.role(allow(*(action for action in LOGS if action != missing)), trust=TRUST_LAMBDA)
    function = aws.function(role, ANSWER)
    assert aws.invoke(function) == "done"
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")["logGroups"]
    lines = [
        event["message"]
        for group in groups
        for event in aws.client("logs").filter_log_events(logGroupName=group["logGroupName"])["events"]
    ]
    assert ("said" in lines) is (missing is None)
    assert aws.refused(role) == ({missing} if missing else set())


def traces(aws: Embedded, function: str) -> list[dict[str, Any]]:
    xray, now = aws.client("xray"), time.time()
    summaries = xray.get_trace_summaries(StartTime=now - 600, EndTime=now + 1)["TraceSummaries"]
    found = [one["Id"] for one in summaries if one["ServiceIds"][0]["Name"] == function]
    documents = xray.batch_get_traces(TraceIds=found)["Traces"] if found else []
    return [json.loads(segment["Document"]) for trace in documents for segment in trace["Segments"]]


def test_a_function_with_active_tracing_leaves_the_traces_that_its_role_may_send(aws: Embedded) -> None:
    active = {"TracingConfig": {"Mode": "Active"}}
    traced = aws.function(aws.role(allow(*LOGS, *TRACES), trust=TRUST_LAMBDA), ANSWER, **active)
    silent_role = aws.role(allow(*LOGS), trust=TRUST_LAMBDA)
    silent = aws.function(silent_role, ANSWER, **active)
    assert (aws.invoke(traced), aws.invoke(silent)) == ("done", "done")

    [segment] = traces(aws, traced)
    assert (segment["origin"], segment["fault"]) == ("AWS::Lambda::Function", False)
    assert traces(aws, silent) == []
    assert aws.refused(silent_role) == set(TRACES)


TRACING = """
    import json, os, socket
    def handler(event, context):
        trace = dict(part.split("=") for part in os.environ["_X_AMZN_TRACE_ID"].split(";"))
        own = {"type": "subsegment", "name": "own", "id": "0123456789abcdef", "start_time": 1, "end_time": 2,
               "trace_id": trace["Root"], "parent_id": trace["Parent"], "annotations": {"model": "m"}}
        host, port = os.environ["AWS_XRAY_DAEMON_ADDRESS"].split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            header = b'{"format": "json", "version": 1}\\n'
            sender.sendto(header + json.dumps(own).encode(), (host, int(port)))
        return trace["Root"]
"""


def test_what_a_functions_code_traces_is_part_of_its_invocations_trace(aws: Embedded) -> None:
    role = aws.role(allow(*LOGS, *TRACES), trust=TRUST_LAMBDA)
    function = aws.function(role, TRACING, TracingConfig={"Mode": "Active"})
    trace = aws.invoke(function)

    def both() -> dict[str, Any] | None:
        segments = aws.client("xray").batch_get_traces(TraceIds=[trace])["Traces"][0]["Segments"]
        found = {one["name"]: one for one in (json.loads(segment["Document"]) for segment in segments)}
        return found if found.keys() == {function, "own"} else None

    assert until(both)["own"]["annotations"] == {"model": "m"}


def test_what_a_function_failed_reaches_a_queue_only_if_its_role_may_send_there(aws: Embedded) -> None:
    key_arn, sqs = key(aws), aws.client("sqs")
    queue = sqs.create_queue(QueueName=unique("dead"), Attributes={"KmsMasterKeyId": key_arn})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    send = allow("sqs:SendMessage", resource=arn)
    encrypt = allow("kms:GenerateDataKey", "kms:Decrypt", resource=key_arn)

    def fails(*rights: dict[str, Any]) -> str:
        role = aws.role(allow(*LOGS), *rights, trust=TRUST_LAMBDA)
        function = aws.function(
            role, "def handler(event, context): raise ValueError(event)", DeadLetterConfig={"TargetArn": arn}
        )
        functions = aws.client("lambda")
        functions.put_function_event_invoke_config(FunctionName=function, MaximumRetryAttempts=0)
        functions.invoke(
            FunctionName=function, InvocationType="Event", Payload=json.dumps({"from": function}).encode()
        )
        return function if rights == (send, encrypt) else role

    roles = [fails(send), fails(encrypt)]
    until(
        lambda: (
            [aws.refused(role) for role in roles]
            == [{"kms:GenerateDataKey", "kms:Decrypt"}, {"sqs:SendMessage"}]
        )
    )
    delivered = fails(send, encrypt)

    def received() -> list[str]:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"])["requestPayload"]["from"] for message in messages]

    assert until(received) == [delivered]


# The network

READ = f"""
    import boto3
    def handler(event, context):
        found = boto3.client("s3").get_object(Bucket="{BUCKET}", Key="probe/1/manifest.json")
        return found["Body"].read().decode()
"""


def test_a_function_in_a_vpc_reaches_s3_only_as_an_endpoint_there_allows(aws: Embedded, subnet: str) -> None:
    ec2 = aws.client("ec2")
    described = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]
    tables = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])
    role = aws.role(allow(*LOGS, *JOIN, "s3:GetObject"), trust=TRUST_LAMBDA)
    function = aws.function(role, READ, VpcConfig={"SubnetIds": [subnet], "SecurityGroupIds": ["sg-1"]})
    assert "no VPC endpoint leads from" in aws.invoke(function)["errorMessage"]

    stack = unique("endpoint")

    def endpoint(bucket: str) -> None:
        policy = {**allow("s3:GetObject", resource=f"arn:aws:s3:::{bucket}/*"), "Principal": "*"}
        properties = {
            "VpcId": described["VpcId"],
            "ServiceName": "com.amazonaws.us-east-1.s3",
            "VpcEndpointType": "Gateway",
            "RouteTableIds": [tables["RouteTables"][0]["RouteTableId"]],
            "PolicyDocument": {"Version": "2012-10-17", "Statement": [policy]},
        }
        made = {"S3": {"Type": "AWS::EC2::VPCEndpoint", "Properties": properties}}
        assert aws.deploy(stack, {"Resources": made})["StackStatus"].endswith("E_COMPLETE")

    endpoint("another")
    assert "no VPC endpoint policy" in aws.invoke(function)["errorMessage"]
    endpoint(BUCKET)
    assert aws.invoke(function) == "{}"
    aws.delete(stack)


# SageMaker


@pytest.mark.parametrize(
    "right",
    ["GetAuthorizationToken", "BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"],
)
def test_an_endpoint_needs_a_role_that_may_pull_the_image(aws: Embedded, right: str) -> None:
    pull = [action for action in OPERATE[0]["Action"] if action != f"ecr:{right}"]
    role = aws.role(allow("s3:*"), allow(*pull))
    described = aws.settled(aws.endpoint(aws.config(aws.model(role))))
    assert described["EndpointStatus"] == "Failed"
    assert described["FailureReason"].startswith(f"The role '{role}' does not have {right} permission for")


def test_a_model_in_a_vpc_needs_rights_on_interfaces_and_a_way_to_its_data(
    aws: Embedded, subnet: str
) -> None:
    vpc = {"Subnets": [subnet], "SecurityGroupIds": ["sg-12345678"]}
    without = aws.model(aws.role(allow("s3:*"), *OPERATE), vpc=vpc)
    described = aws.settled(aws.endpoint(aws.config(without)))
    assert "does not have CreateNetworkInterface permission" in described["FailureReason"]

    ec2 = aws.client("ec2")
    other = ec2.create_subnet(
        VpcId=ec2.create_vpc(CidrBlock="10.98.0.0/16")["Vpc"]["VpcId"], CidrBlock="10.98.1.0/24"
    )
    nowhere = {**vpc, "Subnets": [other["Subnet"]["SubnetId"]]}
    within = aws.model(aws.role(allow("s3:*", "ec2:*"), *OPERATE), vpc=nowhere)
    described = aws.settled(aws.endpoint(aws.config(within)))
    assert described["FailureReason"].startswith("Failed to download model data")
    assert "no VPC endpoint leads from" in described["FailureReason"]


def test_a_container_writes_its_log_and_measures_as_the_role_may(aws: Embedded) -> None:
    right = [action for action in OPERATE[0]["Action"] if not action.startswith(("logs:", "cloudwatch:"))]
    role = aws.role(allow("s3:*"), allow(*right))
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    assert aws.settled(endpoint)["EndpointStatus"] == "InService"
    until(lambda: aws.refused(role) >= {"logs:CreateLogGroup", "cloudwatch:PutMetricData"})
    found = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/sagemaker/Endpoints/{endpoint}")
    assert found["logGroups"] == []


# Passing roles


def test_giving_a_role_to_a_service_takes_the_right_to_pass_it(aws: Embedded) -> None:
    role = aws.role(trust=TRUST_LAMBDA)
    create = allow("lambda:CreateFunction")
    request: dict[str, Any] = {
        "Role": role,
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Code": {"ZipFile": b"PK\x05\x06" + bytes(18)},
    }
    for service, passes in (("sagemaker", False), ("lambda", True)):
        to = {"iam:PassedToService": f"{service}.amazonaws.com"}
        caller = aws.client("lambda", aws.user(create, allow("iam:PassRole", resource=role, StringEquals=to)))
        if passes:
            caller.create_function(FunctionName=unique("passed"), **request)
        else:
            with pytest.raises(botocore.exceptions.ClientError, match=f"iam:PassRole on resource: {role}"):
                caller.create_function(FunctionName=unique("passed"), **request)


# One service calling another


def test_making_a_configuration_with_tags_takes_the_right_to_tag_it(aws: Embedded) -> None:
    make, name = "sagemaker:CreateEndpointConfig", unique("config")
    tag = allow("sagemaker:AddTags", resource=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint-config/{name}")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": aws.model(aws.role()),
        "InstanceType": "ml.m5.large",
    }
    request = {"EndpointConfigName": name, "ProductionVariants": [{**variant, "InitialInstanceCount": 1}]}
    tags = [{"Key": "team", "Value": "a"}]
    maker = aws.client("sagemaker", aws.user(allow(make)))
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied.*sagemaker:AddTags"):
        maker.create_endpoint_config(**request, Tags=tags)
    aws.client("sagemaker", aws.user(allow(make), tag)).create_endpoint_config(**request, Tags=tags)
    maker.create_endpoint_config(**{**request, "EndpointConfigName": unique("config")})


def test_a_trail_needs_a_bucket_a_key_and_a_role_that_let_cloudtrail_write(aws: Embedded) -> None:
    trails, name = aws.client("cloudtrail"), unique("trail")
    bucket, group = f"{name}-bucket", f"/{name}"
    aws.client("s3").create_bucket(Bucket=bucket)
    aws.client("logs").create_log_group(logGroupName=group)
    request: dict[str, Any] = {"Name": name, "S3BucketName": bucket}
    with pytest.raises(botocore.exceptions.ClientError, match="InsufficientS3BucketPolicy"):
        trails.create_trail(**request)

    admitted = {"Effect": "Allow", "Principal": {"Service": "cloudtrail.amazonaws.com"}, "Resource": "*"}
    policy = [{**admitted, "Action": ["s3:GetBucketAcl", "s3:PutObject"]}]
    aws.client("s3").put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": policy})
    )
    with pytest.raises(botocore.exceptions.ClientError, match="InsufficientEncryptionPolicy"):
        trails.create_trail(**request, KmsKeyId=key(aws))
    request["KmsKeyId"] = key(aws, {**admitted, "Action": ["kms:GenerateDataKey*", "kms:DescribeKey"]})

    request["CloudWatchLogsLogGroupArn"] = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}:*"
    cloudtrail = trust("cloudtrail.amazonaws.com")
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidCloudWatchLogsRoleArn"):
        trails.create_trail(**request, CloudWatchLogsRoleArn=aws.role(trust=cloudtrail))
    role = aws.role(allow("logs:CreateLogStream", "logs:PutLogEvents"), trust=cloudtrail)
    trails.create_trail(**request, CloudWatchLogsRoleArn=role)


def test_an_event_starts_a_function_only_if_the_functions_policy_lets_it(aws: Embedded) -> None:
    role = aws.role(allow(*LOGS), trust=TRUST_LAMBDA)
    function, events = aws.function(role, ANSWER), aws.client("events")
    pattern = json.dumps({"source": [function]})
    rule = events.put_rule(Name=function, EventPattern=pattern)["RuleArn"]
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{function}"
    events.put_targets(Rule=function, Targets=[{"Id": "function", "Arn": arn}])

    def invocations() -> int:
        groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")[
            "logGroups"
        ]
        return len(groups)

    entry = {"Source": function, "DetailType": "test", "Detail": "{}"}
    events.put_events(Entries=[entry])
    mine = [{"AttributeKey": "Username", "AttributeValue": "events.amazonaws.com"}]
    until(lambda: arn in str(aws.client("cloudtrail").lookup_events(LookupAttributes=mine)["Events"]))
    assert invocations() == 0
    aws.client("lambda").add_permission(
        FunctionName=function,
        StatementId="rule",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    events.put_events(Entries=[entry])
    until(invocations)


def test_an_alarm_reaches_a_topic_only_if_the_policies_of_topic_and_key_let_it(aws: Embedded) -> None:
    sns, sqs, cloudwatch = aws.client("sns"), aws.client("sqs"), aws.client("cloudwatch")
    admitted = {
        "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
    }
    subscribes = {**admitted, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    heard = {}
    for name, statements in (("closed", [subscribes]), ("open", [admitted])):
        topic = sns.create_topic(Name=unique(name), Attributes={"KmsMasterKeyId": key(aws, *statements)})[
            "TopicArn"
        ]
        queue = sqs.create_queue(QueueName=unique(name))["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        delivery = {
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{**delivery, "Resource": arn}]})
        sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        alarm = unique(name)
        cloudwatch.put_metric_alarm(
            AlarmName=alarm,
            Namespace="test",
            MetricName=alarm,
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
            AlarmActions=[topic],
        )
        cloudwatch.set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="test")
        heard[name] = queue
    until(lambda: sqs.receive_message(QueueUrl=heard["open"]).get("Messages"))
    assert "Messages" not in sqs.receive_message(QueueUrl=heard["closed"])
