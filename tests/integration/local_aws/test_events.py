"""What starts functions by itself: schedules and events, tried again, and kept where they fail."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

from tests.integration.local_aws.embedded import Embedded, unique, until

CODE = "def handler(event, context):\n    print('ran for', event['detail-type'])\n    {ending}\n"


def deploy(aws: Embedded, ending: str, rule: dict[str, Any], *, broken: bool = False) -> dict[str, str]:
    """A function that ends so, started by a rule of these properties, and a queue for what fails."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("index.py", CODE.format(ending=ending))
    bucket, name = unique("code"), unique("events")
    aws.client("s3").create_bucket(Bucket=bucket)
    aws.client("s3").put_object(Bucket=bucket, Key="code.zip", Body=code.getvalue())
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    queue = {"Fn::GetAtt": ["Queue", "Arn"]}
    rights = [
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue},
        {"Effect": "Allow", "Action": "logs:*", "Resource": "*"},
    ]
    undelivered = {**rights[0], "Principal": {"Service": "events.amazonaws.com"}}
    function = {"Fn::GetAtt": ["Function", "Arn"]}
    gone = {"Fn::Sub": "arn:aws:lambda:${AWS::Region}:${AWS::AccountId}:function:gone"}
    target = {"Id": "one", "Arn": gone if broken else function, "DeadLetterConfig": {"Arn": queue}}
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name}},
        "QueuePolicy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "Queue"}],
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [undelivered]},
            },
        },
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                "Policies": [
                    {
                        "PolicyName": "rights",
                        "PolicyDocument": {"Version": "2012-10-17", "Statement": rights},
                    }
                ],
            },
        },
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": name,
                "Runtime": "python3.13",
                "Handler": "index.handler",
                "Code": {"S3Bucket": bucket, "S3Key": "code.zip"},
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "DeadLetterConfig": {"TargetArn": queue},
            },
        },
        "Attempts": {
            "Type": "AWS::Lambda::EventInvokeConfig",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "Qualifier": "$LATEST",
                "MaximumRetryAttempts": 0,
            },
        },
        "Rule": {"Type": "AWS::Events::Rule", "Properties": {**rule, "Targets": [target]}},
        "Permission": {
            "Type": "AWS::Lambda::Permission",
            "Properties": {
                "Action": "lambda:InvokeFunction",
                "FunctionName": function,
                "Principal": "events.amazonaws.com",
                "SourceArn": {"Fn::GetAtt": ["Rule", "Arn"]},
            },
        },
    }
    stack = aws.deploy(name, {"Resources": resources})
    assert stack["StackStatus"] == "CREATE_COMPLETE", aws.failures(name)
    return {"name": name, "queue": aws.client("sqs").get_queue_url(QueueName=name)["QueueUrl"]}


def dead_letter(aws: Embedded, queue: str) -> dict[str, Any]:
    """The first message of the queue."""

    def found() -> Any:
        return (
            aws.client("sqs")
            .receive_message(QueueUrl=queue, MessageAttributeNames=["All"], WaitTimeSeconds=1)
            .get("Messages")
        )

    message: dict[str, Any] = until(found)[0]
    return message


def said(aws: Embedded, function: str) -> str:
    logs = aws.client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{function}")["logGroups"]
    return "".join(
        event["message"]
        for group in groups
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
    )


def send(aws: Embedded, source: str) -> None:
    entry = {"Source": source, "DetailType": "Something happened", "Detail": json.dumps({"number": 7})}
    assert aws.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def test_a_schedule_runs_its_function_again_and_again(aws: Embedded) -> None:
    made = deploy(aws, "return 1", {"ScheduleExpression": "rate(1 minute)", "State": "ENABLED"})
    until(lambda: said(aws, made["name"]).count("ran for Scheduled Event") >= 2)


def test_an_event_that_a_function_fails_on_is_kept(aws: Embedded) -> None:
    source = unique("source")
    made = deploy(aws, "raise ValueError('broken')", {"EventPattern": {"source": [source]}})
    send(aws, source)
    kept = dead_letter(aws, made["queue"])
    assert "number" in kept["Body"]
    assert "ran for Something happened" in said(aws, made["name"])


def test_an_event_whose_function_is_gone_is_kept_with_the_reason(aws: Embedded) -> None:
    source = unique("source")
    made = deploy(aws, "return 1", {"EventPattern": {"source": [source]}}, broken=True)
    send(aws, source)
    kept = dead_letter(aws, made["queue"])
    assert json.loads(kept["Body"])["detail"] == {"number": 7}
    assert kept["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_RESOURCE"


def test_an_alarm_rings_while_a_message_lies_in_a_queue(aws: Embedded) -> None:
    sqs, cloudwatch, name = aws.client("sqs"), aws.client("cloudwatch"), unique("queue")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": name}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    sqs.send_message(QueueUrl=url, MessageBody=base64.b64encode(b"lost").decode())

    def rings() -> bool:
        (alarm,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return bool(alarm["StateValue"] == "ALARM")

    until(rings)
