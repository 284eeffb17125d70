"""The SageMaker SDK's part of the test. Runs in an environment of its own (`make registry-test`).

Its argument is JSON: {"do": "approve", "group", "folder"} registers an artifact and approves it, and prints
the package's ARN; {"do": "invoke", "endpoint", "body"} prints the answer. boto3's variables lead it to the
embedded AWS.
"""

import json
import sys
from contextlib import suppress

import boto3
from sagemaker.core.resources import Endpoint, ModelPackage, ModelPackageGroup
from sagemaker.core.shapes import (
    ContainersItem,
    InferenceSpecification,
    ModelDataSource,
    S3ModelDataSource,
)

IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/inference-onnx:local"


def approve(group: str, folder: str) -> str:
    ModelPackageGroup.create(model_package_group_name=group)
    source = S3ModelDataSource(s3_uri=folder, s3_data_type="S3Prefix", compression_type="None")
    # Of two shapes of this name the SDK takes the model card's, which has such containers.
    container = ContainersItem(image=IMAGE, model_data_source=ModelDataSource(s3_data_source=source))
    # 3.27 looks for a name in CreateModelPackage's answer, which has an ARN only: the package is there then.
    with suppress(KeyError):
        ModelPackage.create(
            model_package_group_name=group,
            model_package_description="Registered by the SDK",
            model_approval_status="PendingManualApproval",
            inference_specification=InferenceSpecification(containers=[container]),
        )
    listed = boto3.client("sagemaker").list_model_packages(ModelPackageGroupName=group)
    arn: str = listed["ModelPackageSummaryList"][0]["ModelPackageArn"]
    package = ModelPackage.get(model_package_name=arn)
    package.update(model_approval_status="Approved", approval_description="better recall")
    assert ModelPackage.get(model_package_name=arn).model_approval_status == "Approved"
    return arn


def invoke(endpoint: str, body: str) -> str:
    answer = Endpoint.get(endpoint_name=endpoint).invoke(
        body=body, content_type="application/json", accept="application/json"
    )
    read: bytes = answer.body.read()
    return json.dumps(json.loads(read))


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    print({"approve": approve, "invoke": invoke}[settings.pop("do")](**settings))
