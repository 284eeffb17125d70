"""A GPU model that sleeps while nobody calls it: what its callers see, what wakes it, and what does not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from app import ROOT
from catalog.loader import load_platform
from catalog.model import GpuModel
from catalog.names import on_target
from inferctl import health
from inference_runtime import protocol
from inference_runtime.manifest import Manifest
from stacks.api import ApiStack
from stacks.constructs.problems import WAKING_SECONDS
from stacks.gpu_model import GpuModelStack
from tests.integration.local_aws.embedded import until
from tests.integration.platform import rights
from tests.integration.platform.changes.deploying import DOUBLE, doubling
from tests.integration.platform.conftest import Platform

pytestmark = pytest.mark.changes

SLEEPER = GpuModel.model_validate(
    {
        "name": "sleeper",
        "description": "Doubles numbers.",
        "owner": "ml",
        "version": "1.0.0",
        "target": "gpu",
        "gpu": {"instance_type": "ml.g5.xlarge"},
        "scaling": {"min": 0},
        "capture": {"percent": 100},
    }
)
NAME = "inference-local-0-sleeper"
STACK, API = f"inference-local-{on_target('sleeper', 'gpu0')}", "inference-local-api"
ASSETS = "cdk-hnb659fds-assets-000000000000-us-east-1"


def publish(platform: Platform, folder: Path) -> Manifest:
    """Makes an artifact live, as the artifacts' stack does: a model of one multiplication."""
    manifest = doubling(folder, "sleeper").manifest
    for file in folder.iterdir():
        key = f"sleeper/{manifest.sha256}/{file.name}"
        platform.aws("s3").upload_file(str(file), "inference-local-models-000000000000-us-east-1", key)
    platform.aws("ssm").put_parameter(
        Name="/inference/local/models/sleeper/live", Value=manifest.sha256, Type="String"
    )
    return manifest


def deploy(platform: Platform, stack: str, template: dict[str, Any]) -> None:
    """Only the stack that changes: the CDK's command line would look at all of them."""
    cloudformation = platform.aws("cloudformation")
    there = {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]}
    act = cloudformation.update_stack if stack in there else cloudformation.create_stack
    s3, key = platform.aws("s3"), f"{stack}.json"
    s3.put_object(Bucket=ASSETS, Key=key, Body=json.dumps(template))
    act(
        StackName=stack,
        TemplateURL=f"{s3.meta.endpoint_url}/{ASSETS}/{key}",
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )

    def status() -> str:
        found: str = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        return "" if found.endswith("IN_PROGRESS") else found

    assert until(status) in ("CREATE_COMPLETE", "UPDATE_COMPLETE")


def delete(platform: Platform) -> None:
    cloudformation = platform.aws("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    until(lambda: STACK not in {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]})


@pytest.fixture
def manifest(platform: Platform, tmp_path: Path) -> Iterator[Manifest]:
    """The sleeping model, deployed beside the platform's; afterwards the platform is as it was."""
    base = load_platform(ROOT, "local")
    cloudformation = platform.aws("cloudformation")
    before = cloudformation.get_template(StackName=API)["TemplateBody"]
    app = cdk.App(
        outdir=str(tmp_path / "out"), context=json.loads((ROOT / "cdk.json").read_text())["context"]
    )
    GpuModelStack(app, base.environment, SLEEPER)
    ApiStack(app, base.environment, [*base.models, SLEEPER])
    assembly = app.synth()
    published = publish(platform, tmp_path / "artifact")
    try:
        deploy(platform, STACK, assembly.get_stack_by_name(STACK).template)
        deploy(platform, API, assembly.get_stack_by_name(API).template)
        yield published
        deploy(platform, API, json.loads(before) if isinstance(before, str) else before)
    finally:
        delete(platform)
        platform.aws("ssm").delete_parameter(Name="/inference/local/models/sleeper/live")


def test_a_model_sleeps_until_it_is_called_and_again_when_nobody_calls_it_and_goes_without_a_trace(
    platform: Platform, manifest: Manifest
) -> None:
    sagemaker, scaling = platform.aws("sagemaker"), platform.aws("application-autoscaling")

    def copies() -> dict[str, int]:
        found = sagemaker.describe_inference_component(InferenceComponentName=NAME)
        counts: dict[str, int] = found["RuntimeConfig"]
        return counts

    asleep = {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
    # A deployment starts a copy, to show that the model can: nobody calls it, and it falls asleep.
    until(lambda: copies() == asleep)

    # Looking at it wakes nothing.
    looked = platform.call("GET", "/v2/models/sleeper")
    assert (looked.status_code, looked.json()) == (200, json.loads(protocol.model_metadata(manifest)))
    ready = platform.call("GET", "/v2/models/sleeper/ready")
    assert (ready.status_code, "sleeps" in ready.json()["detail"]) == (503, True)
    assert platform.call("GET", "/v2/health/ready").json() == {"ready": True}
    [state] = health.models(platform.deployed.aws, "local", [SLEEPER])
    assert state.status == "Asleep"
    activities = scaling.describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=f"inference-component/{NAME}"
    )["ScalingActivities"]
    assert [one["Description"] for one in activities] == ["Setting desired copy count to 0."]

    # Calling it does: the caller is told how long that takes.
    answer = platform.infer("sleeper", DOUBLE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(WAKING_SECONDS))
    assert answer.json()["type"] == "urn:inference-platform:problem:model-unavailable"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert NAME not in answer.text

    statuses = set()

    def woken() -> bool:
        nonlocal answer
        answer = platform.infer("sleeper", DOUBLE)
        statuses.add(answer.status_code)
        return answer.status_code == 200

    until(woken)
    assert statuses == {503, 200}
    assert answer.json()["outputs"][0]["data"] == [2, -5]
    # Who knocked while it woke has woken no second copy.
    assert copies() == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    assert platform.call("GET", "/v2/models/sleeper/ready").status_code == 200

    until(lambda: copies() == asleep)
    until(
        lambda: platform.aws("s3").list_objects_v2(
            Bucket="inference-local-data-000000000000-us-east-1", Prefix=f"captures/{NAME}/AllTraffic/"
        )["KeyCount"]
    )
    ours = [role for role in rights.roles(platform) if role.startswith((STACK, f"{API}-Catalog"))]
    assert len(ours) == 3  # the catalog, what runs the model, and what tries its versions
    assert not set().union(*(rights.refused(platform, role, platform.deployed_at) for role in ours))

    delete(platform)
    assert sagemaker.list_inference_components(NameContains=NAME)["InferenceComponents"] == []
    assert sagemaker.list_endpoints(NameContains=NAME)["Endpoints"] == []
    targets = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"inference-component/{NAME}"]
    )
    assert targets["ScalableTargets"] == []
