"""The SageMaker SDK's part of the test. Runs in an environment of its own (`make registry-test`).

Its argument is JSON: {"do": "approve", "group", "folder"} registers an artifact and approves it, and prints
the package's ARN; {"do": "invoke", "endpoint", "body"} prints the answer. boto3's variables lead it to the
embedded AWS.
"""

import json
import sys

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
    package = ModelPackage.create(
        model_package_group_name=group,
        model_package_description="Registered by the SDK",
        model_approval_status="PendingManualApproval",
        inference_specification=InferenceSpecification(containers=[container]),
    )
    package.update(model_approval_status="Approved", approval_description="better recall")
    package.refresh()
    assert package.model_approval_status == "Approved"
    return str(package.model_package_arn)


def invoke(endpoint: str, body: str) -> str:
    answer = Endpoint.get(endpoint_name=endpoint).invoke(
        body=body, content_type="application/json", accept="application/json"
    )
    read: bytes = answer.body.read()
    return json.dumps(json.loads(read))


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    print({"approve": approve, "invoke": invoke}[settings.pop("do")](**settings))
