"""Making something of SageMaker's with tags takes the right to tag it, of whoever makes it.

docs.aws.amazon.com/sagemaker/latest/dg/security_iam_id-based-policy-examples.html (permissions for tagging).
"""

from __future__ import annotations

from collections.abc import Iterator

from local_aws.authorization import Request, Right, takes_also

# Operation -> the kind of what it makes, in its ARN, and where the request names it.
MADE = {
    "CreateModel": ("model", "ModelName"),
    "CreateEndpointConfig": ("endpoint-config", "EndpointConfigName"),
    "CreateEndpoint": ("endpoint", "EndpointName"),
    "CreateInferenceComponent": ("inference-component", "InferenceComponentName"),
}


def install() -> None:
    takes_also("sagemaker", _rights)


def _rights(request: Request) -> Iterator[Right]:
    parameters = request.json()
    if request.operation in MADE and parameters.get("Tags"):
        kind, name = MADE[request.operation]
        made = f"{kind}/{str(parameters.get(name)).lower()}"
        yield Right("sagemaker:AddTags", f"arn:aws:sagemaker:{request.region}:{request.account}:{made}")
