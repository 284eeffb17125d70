"""Stacks: the types that are added, what replaces a resource, and that a failure says why."""

from __future__ import annotations

import io
import json
import textwrap
import zipfile
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import BUCKET, IMAGE, Embedded, unique


def template(resources: dict[str, Any], **outputs: Any) -> dict[str, Any]:
    return {"Resources": resources, "Outputs": {name: {"Value": value} for name, value in outputs.items()}}


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}


def endpoint_template(role: str, name: str, **environment: str) -> dict[str, Any]:
    source = {"S3Uri": f"s3://{BUCKET}/probe/1/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    return template(
        {
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {
                    "ExecutionRoleArn": role,
                    "PrimaryContainer": {
                        "Image": IMAGE,
                        "Environment": environment,
                        "ModelDataSource": {"S3DataSource": source},
                    },
                },
            },
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {
                    "ProductionVariants": [
                        {
                            "VariantName": "AllTraffic",
                            "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
                            # As a template may have it: CloudFormation takes strings for numbers.
                            "InitialInstanceCount": "1",
                            "InstanceType": "ml.g5.xlarge",
                        }
                    ]
                },
            },
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {
                    "EndpointName": name,
                    "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                },
            },
            "Target": {
                "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
                "DependsOn": "Endpoint",
                "Properties": {
                    "ServiceNamespace": "sagemaker",
                    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
                    "ResourceId": f"endpoint/{name}/variant/AllTraffic",
                    "MinCapacity": 1,
                    "MaxCapacity": 4,
                },
            },
            "Policy": {
                "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
                "Properties": {
                    "PolicyName": "track",
                    "PolicyType": "TargetTrackingScaling",
                    "ScalingTargetId": {"Ref": "Target"},
                    "TargetTrackingScalingPolicyConfiguration": {
                        "TargetValue": 4,
                        "PredefinedMetricSpecification": {
                            "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
                        },
                    },
                },
            },
        },
        Endpoint={"Ref": "Endpoint"},
        Name={"Fn::GetAtt": ["Endpoint", "EndpointName"]},
        Target={"Ref": "Target"},
    )


def test_an_endpoint_is_made_replaced_blue_green_and_deleted_by_its_stack(aws: Embedded, role: str) -> None:
    sagemaker, name, stack = aws.client("sagemaker"), unique("Stacked"), unique("stack")

    made = aws.deploy(stack, endpoint_template(role, name, VERSION="1"))
    assert made["StackStatus"] == "CREATE_COMPLETE"
    assert outputs(made) == {
        "Endpoint": f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{name.lower()}",
        "Name": name,
        "Target": f"endpoint/{name}/variant/AllTraffic|sagemaker:variant:DesiredInstanceCount|sagemaker",
    }
    first = sagemaker.describe_endpoint(EndpointName=name)
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=first["EndpointArn"])["Tags"]}
    assert tags["aws:cloudformation:stack-name"] == stack
    assert aws.ask(name)["version"] == "1"

    updated = aws.deploy(stack, endpoint_template(role, name, VERSION="2"))
    assert updated["StackStatus"] == "UPDATE_COMPLETE"
    second = sagemaker.describe_endpoint(EndpointName=name)
    assert second["EndpointConfigName"] != first["EndpointConfigName"]
    assert second["CreationTime"] == first["CreationTime"]
    assert aws.ask(name)["version"] == "2"
    # What was replaced is gone.
    with pytest.raises(botocore.exceptions.ClientError, match="Could not find endpoint configuration"):
        sagemaker.describe_endpoint_config(EndpointConfigName=first["EndpointConfigName"])

    aws.delete(stack)
    assert sagemaker.list_endpoints(NameContains=name)["Endpoints"] == []
    scaling = aws.client("application-autoscaling")
    resource = f"endpoint/{name}/variant/AllTraffic"
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[resource])
    assert found["ScalableTargets"] == []


def test_an_endpoint_that_fails_rolls_its_stack_back_with_the_reason(aws: Embedded, role: str) -> None:
    name, stack = unique("endpoint"), unique("stack")
    failed = aws.deploy(stack, endpoint_template(role, name, BEHAVIOUR="exit"))
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "no such tensor" in aws.failures(stack)["Endpoint"]
    assert aws.client("sagemaker").list_endpoints(NameContains=name)["Endpoints"] == []


def test_an_update_that_fails_leaves_the_endpoint_as_it_was(aws: Embedded, role: str) -> None:
    name, stack = unique("endpoint"), unique("stack")
    aws.deploy(stack, endpoint_template(role, name, VERSION="1"))
    failed = aws.deploy(stack, endpoint_template(role, name, BEHAVIOUR="exit"))
    assert failed["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "no such tensor" in aws.failures(stack)["Endpoint"]
    assert aws.ask(name)["version"] == "1"
    assert aws.deploy(stack, endpoint_template(role, name, VERSION="3"))["StackStatus"] == "UPDATE_COMPLETE"
    assert aws.ask(name)["version"] == "3"
    aws.delete(stack)


def everything(name: str, *, description: str) -> dict[str, Any]:
    """One of each type that only remembers, over resources that MiniStack makes."""
    arn = {"Fn::GetAtt": ["WebAcl", "Arn"]}
    visible = {"CloudWatchMetricsEnabled": True, "MetricName": "acl", "SampledRequestsEnabled": True}
    log_group = f"arn:aws:logs:us-east-1:000000000000:log-group:aws-waf-logs-{name}"
    stage = f"arn:aws:apigateway:us-east-1::/restapis/{name}/stages/dev"
    errors = {"Metric": {"Namespace": name, "MetricName": "errors"}, "Period": 60, "Stat": "Sum"}
    return template(
        {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.1.0.0/16"}},
            "Group": {
                "Type": "AWS::EC2::SecurityGroup",
                "Properties": {"GroupDescription": "one", "VpcId": {"Ref": "Vpc"}},
            },
            "Ingress": {
                "Type": "AWS::EC2::SecurityGroupIngress",
                "Properties": {
                    "GroupId": {"Ref": "Group"},
                    "IpProtocol": "tcp",
                    "FromPort": 443,
                    "ToPort": 443,
                    "CidrIp": "10.1.0.0/16",
                },
            },
            "Egress": {
                "Type": "AWS::EC2::SecurityGroupEgress",
                "Properties": {
                    "GroupId": {"Ref": "Group"},
                    "IpProtocol": "tcp",
                    "FromPort": 443,
                    "ToPort": 443,
                    "DestinationSecurityGroupId": {"Ref": "Group"},
                },
            },
            "FlowLog": {
                "Type": "AWS::EC2::FlowLog",
                "Properties": {
                    "ResourceId": {"Ref": "Vpc"},
                    "ResourceType": "VPC",
                    "TrafficType": "REJECT",
                    "LogGroupName": name,
                    "DeliverLogsPermissionArn": "arn:aws:iam::000000000000:role/flow-logs",
                    "Tags": [{"Key": "team", "Value": description}],
                },
            },
            "TrailBucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": f"{name}-trail"}},
            "TrailBucketPolicy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "Bucket": {"Ref": "TrailBucket"},
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Service": "cloudtrail.amazonaws.com"},
                                "Action": ["s3:GetBucketAcl", "s3:PutObject"],
                                "Resource": [f"arn:aws:s3:::{name}-trail", f"arn:aws:s3:::{name}-trail/*"],
                            }
                        ],
                    },
                },
            },
            "Trail": {
                "Type": "AWS::CloudTrail::Trail",
                "DependsOn": "TrailBucketPolicy",
                "Properties": {
                    "TrailName": name,
                    "S3BucketName": {"Ref": "TrailBucket"},
                    "IsLogging": True,
                    "IsMultiRegionTrail": True,
                    "EnableLogFileValidation": True,
                    "EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": True}],
                },
            },
            "WebAcl": {
                "Type": "AWS::WAFv2::WebACL",
                "Properties": {
                    "Name": name,
                    "Scope": "REGIONAL",
                    "DefaultAction": {"Allow": {}},
                    "VisibilityConfig": visible,
                },
            },
            "Association": {
                "Type": "AWS::WAFv2::WebACLAssociation",
                "Properties": {"WebACLArn": arn, "ResourceArn": stage},
            },
            "WafLogging": {
                "Type": "AWS::WAFv2::LoggingConfiguration",
                "Properties": {"ResourceArn": arn, "LogDestinationConfigs": [log_group]},
            },
            "Query": {
                "Type": "AWS::Logs::QueryDefinition",
                "Properties": {"Name": name, "QueryString": f"fields @message # {description}"},
            },
            "Alarm": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "AlarmName": name,
                    "Metrics": [
                        {"Id": "rate", "Expression": "100 * FILL(errors, 0)", "ReturnData": True},
                        {"Id": "errors", "MetricStat": errors, "ReturnData": False},
                    ],
                    "ComparisonOperator": "GreaterThanThreshold",
                    "Threshold": 5,
                    "EvaluationPeriods": 1,
                },
            },
            "Composite": {
                "Type": "AWS::CloudWatch::CompositeAlarm",
                "DependsOn": "Alarm",
                "Properties": {
                    "AlarmName": f"{name}-any",
                    "AlarmRule": f'ALARM("{name}")',
                    "AlarmDescription": description,
                },
            },
        },
        Trail={"Fn::GetAtt": ["Trail", "Arn"]},
        FlowLog={"Ref": "FlowLog"},
        Query={"Ref": "Query"},
        Composite={"Fn::GetAtt": ["Composite", "Arn"]},
    )


def test_the_other_types_reach_their_services_and_leave_them(aws: Embedded) -> None:
    name, stack = unique("all"), unique("stack")
    made = aws.deploy(stack, everything(name, description="first"))
    assert made["StackStatus"] == "CREATE_COMPLETE", aws.failures(stack)
    found = outputs(made)

    assert found["Trail"] == f"arn:aws:cloudtrail:us-east-1:000000000000:trail/{name}"
    trails, waf = aws.client("cloudtrail"), aws.client("wafv2")
    assert trails.get_trail_status(Name=name)["IsLogging"] is True
    assert trails.get_trail(Name=name)["Trail"]["LogFileValidationEnabled"] is True
    (flow_log,) = aws.client("ec2").describe_flow_logs(FlowLogIds=[found["FlowLog"]])["FlowLogs"]
    assert flow_log["TrafficType"] == "REJECT"
    assert flow_log["Tags"] == [{"Key": "team", "Value": "first"}]
    groups = aws.client("ec2").describe_security_groups(Filters=[{"Name": "description", "Values": ["one"]}])
    group = next(one for one in groups["SecurityGroups"] if one["GroupName"].startswith(stack))
    assert [rule["IpRanges"][0]["CidrIp"] for rule in group["IpPermissions"]] == ["10.1.0.0/16"]
    assert [rule for rule in group["IpPermissionsEgress"] if rule["UserIdGroupPairs"]]
    stage = f"arn:aws:apigateway:us-east-1::/restapis/{name}/stages/dev"
    acl = waf.get_web_acl_for_resource(ResourceArn=stage)["WebACL"]
    assert acl["Name"] == name
    logged = waf.get_logging_configuration(ResourceArn=acl["ARN"])["LoggingConfiguration"]
    assert logged["LogDestinationConfigs"][0].endswith(f"aws-waf-logs-{name}")
    assert _query(aws, name) == "fields @message # first"
    _breach(aws, name)
    assert _states(aws, name) == {name: "ALARM", f"{name}-any": "ALARM"}

    updated = aws.deploy(stack, everything(name, description="second"))
    assert updated["StackStatus"] == "UPDATE_COMPLETE", aws.failures(stack)
    assert outputs(updated) == found
    assert _query(aws, name) == "fields @message # second"

    aws.delete(stack)
    assert _query(aws, name) is None
    assert _states(aws, name) == {}
    assert trails.describe_trails(trailNameList=[name])["trailList"] == []


def _query(aws: Embedded, name: str) -> str | None:
    found = aws.client("logs").describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"]
    return found[0]["queryString"] if found else None


def _breach(aws: Embedded, namespace: str) -> None:
    aws.client("cloudwatch").put_metric_data(
        Namespace=namespace, MetricData=[{"MetricName": "errors", "Value": 1}]
    )


def _states(aws: Embedded, prefix: str) -> dict[str, str]:
    found = aws.client("cloudwatch").describe_alarms(
        AlarmNamePrefix=prefix, AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    every = [*found["MetricAlarms"], *found["CompositeAlarms"]]
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in every}


def test_a_type_that_nothing_makes_is_refused_by_type_and_logical_id(aws: Embedded) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        aws.deploy(
            unique("stack"), template({"Studio": {"Type": "AWS::SageMaker::Domain", "Properties": {}}})
        )
    assert "Studio (AWS::SageMaker::Domain)" in caught.value.response["Error"]["Message"]


def test_a_property_that_is_not_honoured_fails_the_resource_by_name(aws: Embedded) -> None:
    stack = unique("stack")
    properties = {"Name": stack, "QueryString": "fields @message", "Sparkle": True}
    aws.deploy(stack, template({"Query": {"Type": "AWS::Logs::QueryDefinition", "Properties": properties}}))
    assert "AWS::Logs::QueryDefinition properties Sparkle" in aws.failures(stack)["Query"]


def test_an_alarm_whose_expression_cannot_be_evaluated_fails_by_name(aws: Embedded) -> None:
    stack = unique("stack")
    resources = {
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Metrics": [
                    {"Id": "rate", "Expression": "RATE(m)"},
                    {
                        "Id": "m",
                        "ReturnData": False,
                        "MetricStat": {
                            "Metric": {"Namespace": "n", "MetricName": "m"},
                            "Period": 60,
                            "Stat": "Sum",
                        },
                    },
                ],
                "ComparisonOperator": "GreaterThanThreshold",
                "Threshold": 1,
                "EvaluationPeriods": 1,
            },
        }
    }
    aws.deploy(stack, template(resources))
    assert "RATE(m)" in aws.failures(stack)["Alarm"]


# Custom resources, and what their function sees

HANDLER = """
import json, os, sys, urllib.request
import boto3

def handler(event, context):
    if event["ResourceProperties"].get("Fail"):
        raise RuntimeError("the artifact is not there")
    try:
        import pydantic
        seen = "the project's packages"
    except ImportError:
        seen = "its own packages"
    identity = boto3.client("sts").get_caller_identity()["Arn"]
    server = ("MINISTACK", "LOCAL_AWS_H", "STATE", "GATEWAY", "AUTH")
    leaked = ",".join(name for name in os.environ if name.startswith(server))
    data = {"Seen": seen, "Identity": identity, "Leaked": leaked}
    body = json.dumps({"Status": "SUCCESS", "PhysicalResourceId": "one", "Data": data,
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}}).encode()
    url, plain = event["ResponseURL"], {"Content-Type": ""}
    request = urllib.request.Request(url, data=body, method="PUT", headers=plain)
    urllib.request.urlopen(request)
"""


def custom_resource(aws: Embedded, **properties: str) -> dict[str, Any]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("index.py", textwrap.dedent(HANDLER))
    key = f"code/{unique('zip')}.zip"
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=zipped.getvalue())
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    return template(
        {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}},
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.13",
                    "Handler": "index.handler",
                    "Timeout": 60,
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"S3Bucket": BUCKET, "S3Key": key},
                },
            },
            "Resource": {
                "Type": "Custom::Thing",
                "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, **properties},
            },
        },
        **{name: {"Fn::GetAtt": ["Resource", name]} for name in ("Seen", "Identity", "Leaked")},
    )


def test_a_function_answers_cloudformation_as_its_role_with_its_own_packages(aws: Embedded) -> None:
    stack = unique("stack")
    made = aws.deploy(stack, custom_resource(aws))
    assert made["StackStatus"] == "CREATE_COMPLETE", aws.failures(stack)
    found = outputs(made)
    assert found["Seen"] == "its own packages"
    assert found["Leaked"] == ""
    assert found["Identity"].startswith("arn:aws:sts::000000000000:assumed-role/")


def test_a_custom_resource_whose_function_raises_fails_at_once_with_its_error(aws: Embedded) -> None:
    stack = unique("stack")
    failed = aws.deploy(stack, custom_resource(aws, Fail="yes"))
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "the artifact is not there" in json.dumps(aws.failures(stack))
