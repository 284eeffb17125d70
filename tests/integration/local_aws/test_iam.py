"""IAM: who may call our services, and what an execution role may read."""

from __future__ import annotations

import json

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import BUCKET, OPERATE, Embedded


def allow(action: str, resource: str) -> dict[str, str]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:000000000000:{kind}/{name}"


def test_a_caller_invokes_only_the_endpoint_its_policy_names(aws: Embedded, endpoint: str) -> None:
    invited = aws.user(allow("sagemaker:InvokeEndpoint", arn("endpoint", endpoint)))
    stranger = aws.user(allow("sagemaker:InvokeEndpoint", arn("endpoint", "another")))

    answer = aws.client("sagemaker-runtime", invited).invoke_endpoint(EndpointName=endpoint, Body=b"{}")
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        aws.client("sagemaker-runtime", stranger).invoke_endpoint(EndpointName=endpoint, Body=b"{}")
    error = caught.value.response
    assert (error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]) == (
        403,
        "AccessDeniedException",
    )
    assert "sagemaker:InvokeEndpoint" in error["Error"]["Message"]


def test_a_caller_describes_only_what_its_policy_names(aws: Embedded, endpoint: str) -> None:
    reader = aws.client("sagemaker", aws.user(allow("sagemaker:Describe*", arn("endpoint", endpoint))))
    config = reader.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    for call in (
        lambda: reader.describe_endpoint_config(EndpointConfigName=config),
        lambda: reader.delete_endpoint(EndpointName=endpoint),
        lambda: reader.list_endpoints(),
    ):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            call()


def test_scalable_targets_are_behind_iam(aws: Embedded) -> None:
    stranger = aws.client("application-autoscaling", aws.user(allow("sagemaker:*", "*")))
    with pytest.raises(
        botocore.exceptions.ClientError, match="application-autoscaling:DescribeScalableTargets"
    ):
        stranger.describe_scalable_targets(ServiceNamespace="sagemaker")


@pytest.mark.parametrize(
    "rights",
    [
        [],
        [allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*")],
        [
            allow("s3:ListBucket", f"arn:aws:s3:::{BUCKET}"),
            allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/other/*"),
        ],
    ],
    ids=["nothing", "no list", "another prefix"],
)
def test_an_execution_role_that_may_not_read_the_model_fails_the_endpoint(
    aws: Embedded, rights: list[dict[str, str]]
) -> None:
    described = aws.settled(aws.endpoint(aws.config(aws.model(aws.role(*OPERATE, *rights)))))
    assert described["EndpointStatus"] == "Failed"
    assert f's3://{BUCKET}/probe/1/"' in described["FailureReason"]
    assert "has permissions to download the model" in described["FailureReason"]


NOBODY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


def test_a_role_that_does_not_trust_sagemaker_makes_no_model(aws: Embedded) -> None:
    role = aws.role(allow("s3:*", "*"), trust=NOBODY)
    with pytest.raises(botocore.exceptions.ClientError, match=r"ValidationException.*Could not assume role"):
        aws.model(role)


def test_a_role_that_no_longer_trusts_sagemaker_fails_the_endpoint(aws: Embedded) -> None:
    role = aws.role(allow("s3:*", "*"))
    config = aws.config(aws.model(role))
    aws.client("iam").update_assume_role_policy(
        RoleName=role.rpartition("/")[2], PolicyDocument=json.dumps(NOBODY)
    )
    described = aws.settled(aws.endpoint(config))
    assert described["EndpointStatus"] == "Failed"
    assert "does not let sagemaker.amazonaws.com assume it" in described["FailureReason"]


def test_get_parameters_is_authorized_for_every_parameter_it_names(aws: Embedded) -> None:
    prefix = "arn:aws:ssm:us-east-1:000000000000:parameter"
    reader = aws.client("ssm", aws.user(allow("ssm:GetParameters", f"{prefix}/mine/*")))
    assert reader.get_parameters(Names=["/mine/a", "/mine/b"])["InvalidParameters"] == ["/mine/a", "/mine/b"]
    for names in (["/other/a"], ["/mine/a", "/other/a"]):
        with pytest.raises(botocore.exceptions.ClientError, match=r"ssm:GetParameters.*/other/a"):
            reader.get_parameters(Names=names)


def test_a_request_with_a_qualifier_is_authorized_against_the_qualified_arn(aws: Embedded) -> None:
    function = "arn:aws:lambda:us-east-1:000000000000:function:none"
    reader = aws.client("lambda", aws.user(allow("lambda:GetFunctionConfiguration", f"{function}:live")))
    # Allowed, and then there is no such function.
    with pytest.raises(botocore.exceptions.ClientError, match="ResourceNotFound"):
        reader.get_function_configuration(FunctionName="none", Qualifier="live")
    for more in ({}, {"Qualifier": "other"}):
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            reader.get_function_configuration(FunctionName="none", **more)
