"""The control plane on the wire: answers that botocore's model allows, errors worded as AWS words them."""

from __future__ import annotations

import os
import ssl
from typing import Any

import botocore.exceptions
import httpx
import pytest

from local_aws.wire import service_model
from tests.integration.local_aws.embedded import IMAGE, Embedded, unique, until
from tests.integration.local_aws.shapes import violations


def refusal(call: Any, **parameters: Any) -> tuple[str, str]:
    """(code, message) of the error that a call is answered with."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_every_answer_is_one_that_the_model_allows(aws: Embedded, role: str, endpoint: str) -> None:
    sagemaker = aws.client("sagemaker")
    config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    model = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0][
        "ModelName"
    ]
    arn = sagemaker.describe_model(ModelName=model)["ModelArn"]
    answers = {
        "CreateModel": sagemaker.create_model(
            ModelName=(other := unique("m")), PrimaryContainer={"Image": IMAGE}
        ),
        "DescribeModel": sagemaker.describe_model(ModelName=model),
        "ListModels": sagemaker.list_models(MaxResults=5, SortBy="Name", SortOrder="Ascending"),
        "DeleteModel": sagemaker.delete_model(ModelName=other),
        "DescribeEndpointConfig": sagemaker.describe_endpoint_config(EndpointConfigName=config),
        "ListEndpointConfigs": sagemaker.list_endpoint_configs(NameContains="config"),
        "DescribeEndpoint": sagemaker.describe_endpoint(EndpointName=endpoint),
        "ListEndpoints": sagemaker.list_endpoints(StatusEquals="InService"),
        "AddTags": sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "a"}]),
        "ListTags": sagemaker.list_tags(ResourceArn=arn),
        "DeleteTags": sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"]),
    }
    faults = [fault for name, answer in answers.items() for fault in violations("sagemaker", name, answer)]
    assert faults == []
    assert answers["ListTags"]["Tags"] == [{"Key": "team", "Value": "a"}]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == []


@pytest.mark.parametrize(
    ("operation", "name", "kind", "resource"),
    [
        ("describe_endpoint", "EndpointName", "endpoint", "endpoint"),
        ("delete_endpoint", "EndpointName", "endpoint", "endpoint"),
        ("describe_endpoint_config", "EndpointConfigName", "endpoint configuration", "endpoint-config"),
        ("describe_model", "ModelName", "model", "model"),
        ("delete_model", "ModelName", "model", "model"),
    ],
)
def test_what_is_not_there_is_named_by_its_arn(
    aws: Embedded, operation: str, name: str, kind: str, resource: str
) -> None:
    code, message = refusal(getattr(aws.client("sagemaker"), operation), **{name: "Nothing"})
    assert code == "ValidationException"
    assert message == f'Could not find {kind} "arn:aws:sagemaker:us-east-1:000000000000:{resource}/nothing".'


def test_a_name_is_taken_whatever_its_case(aws: Embedded) -> None:
    sagemaker, name = aws.client("sagemaker"), unique("Taken")
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE})
    _, message = refusal(sagemaker.create_model, ModelName=name.upper(), PrimaryContainer={"Image": IMAGE})
    assert message.startswith("Cannot create already existing model")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"ModelName": "under_score", "PrimaryContainer": {"Image": IMAGE}}, "regular expression pattern"),
        ({"ModelName": "m" * 64, "PrimaryContainer": {"Image": IMAGE}}, "length less than or equal to 63"),
        (
            {"ModelName": "m", "PrimaryContainer": {"Image": IMAGE, "Mode": "Sometimes"}},
            "enum value set: [SingleModel, MultiModel]",
        ),
        ({"ModelName": "m"}, "Exactly one of PrimaryContainer and Containers"),
        ({"ModelName": "m", "PrimaryContainer": {"Image": IMAGE, "Mode": "MultiModel"}}, "multi-model"),
    ],
)
def test_parameters_outside_the_model_are_refused(
    aws: Embedded, parameters: dict[str, Any], expected: str
) -> None:
    code, message = refusal(aws.client("sagemaker").create_model, **parameters)
    assert code == "ValidationException"
    assert expected in message


def test_a_configuration_of_a_model_that_is_not_there_is_refused(aws: Embedded) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=r'Could not find model ".*:model/nowhere"'):
        aws.config("nowhere")


@pytest.mark.parametrize("operation", ["CreateTransformJob", "CreateExperiment"])
def test_operations_that_are_not_served_say_so_by_name(aws: Embedded, operation: str) -> None:
    sagemaker = aws.client("sagemaker")
    # The least that botocore lets through: the refusal must come from the service.
    method = next(
        name for name, served in sagemaker.meta.method_to_api_mapping.items() if served == operation
    )
    shape = service_model("sagemaker").operation_model(operation).input_shape
    parameters = {name: _least(shape.members[name]) for name in shape.required_members}
    code, message = refusal(getattr(sagemaker, method), **parameters)
    assert code == "UnknownOperationException"
    assert message.startswith(operation)


def _least(shape: Any) -> Any:
    if shape.type_name == "structure":
        return {name: _least(shape.members[name]) for name in shape.required_members}
    return {"string": "x", "integer": 1, "list": [], "map": {}, "boolean": False}[shape.type_name]


def test_lists_are_paged(aws: Embedded) -> None:
    sagemaker, prefix = aws.client("sagemaker"), unique("paged")
    for index in range(5):
        sagemaker.create_model(ModelName=f"{prefix}-{index}", PrimaryContainer={"Image": IMAGE})
    pages = sagemaker.get_paginator("list_models").paginate(
        NameContains=prefix, SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    names = [[model["ModelName"] for model in page["Models"]] for page in pages]
    assert names == [
        [f"{prefix}-0", f"{prefix}-1"],
        [f"{prefix}-2", f"{prefix}-3"],
        [f"{prefix}-4"],
    ]


def test_an_unsigned_request_is_refused(aws: Embedded) -> None:
    answer = httpx.post(
        aws.state.endpoint,
        headers={"X-Amz-Target": "SageMaker.ListModels", "Content-Type": "application/x-amz-json-1.1"},
        content=b"{}",
        verify=ssl.create_default_context(cafile=aws.state.ca_bundle),
    )
    assert (answer.status_code, answer.json()["__type"]) == (400, "MissingAuthenticationTokenException")


def test_a_deleted_endpoint_is_gone_with_its_processes(aws: Embedded, role: str) -> None:
    sagemaker = aws.client("sagemaker")
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    assert aws.settled(endpoint)["EndpointStatus"] == "InService"
    process = aws.ask(endpoint)["pid"]

    sagemaker.delete_endpoint(EndpointName=endpoint)

    until(lambda: not sagemaker.list_endpoints(NameContains=endpoint)["Endpoints"])
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
