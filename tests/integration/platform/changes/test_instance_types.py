"""An endpoint that is scaled gets instances of another type, while clients call it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from app import ROOT
from catalog.environment import ContainerImage, Environment
from catalog.loader import load_platform
from catalog.model import GpuModel
from catalog.names import on_target
from stacks.gpu_model import GpuModelStack
from tests.integration.platform.changes.sleeping import deploy
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import Callers

pytestmark = pytest.mark.changes

MODEL = "text-embedding"
NAME, STACK = f"inference-local-{MODEL}", f"inference-local-{on_target(MODEL, 'gpu')}"


@pytest.fixture
def spec(platform: Platform) -> Iterator[GpuModel]:
    """The model as it is deployed, and again afterwards."""
    base = load_platform(ROOT, "local")
    [found] = [one for one in base.models if one.name == MODEL]
    assert isinstance(found, GpuModel)
    before = platform.aws("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    yield found
    deploy(platform, STACK, json.loads(before) if isinstance(before, str) else before)


def template(folder: Path, environment: Environment, spec: GpuModel) -> dict[str, Any]:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(folder), context=context)
    GpuModelStack(app, environment, spec)
    found: dict[str, Any] = app.synth().get_stack_by_name(STACK).template
    return found


def with_instances(spec: GpuModel, instance_type: str, most: int) -> GpuModel:
    gpu = spec.gpu.model_copy(update={"instance_type": instance_type})
    return spec.model_copy(update={"gpu": gpu, "scaling": spec.scaling.model_copy(update={"max": most})})


def runs_on(platform: Platform) -> str:
    sagemaker = platform.aws("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=NAME)
    assert endpoint["EndpointStatus"] == "InService"
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    return str(config["ProductionVariants"][0]["InstanceType"])


def scaled(platform: Platform) -> list[tuple[int, int, int]]:
    """The endpoint's scalable targets: from how many to how many instances, and policies."""
    scaling = platform.aws("application-autoscaling")
    where = f"endpoint/{NAME}/variant/AllTraffic"
    found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[where])
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=where)
    return [
        (one["MinCapacity"], one["MaxCapacity"], len(policies["ScalingPolicies"]))
        for one in found["ScalableTargets"]
    ]


def test_a_scaled_endpoint_changes_its_instance_type_and_is_scaled_again_whether_that_goes_well_or_not(
    platform: Platform, spec: GpuModel, tmp_path: Path
) -> None:
    environment, callers = load_platform(ROOT, "local").environment, Callers(platform, MODEL)
    assert (runs_on(platform), scaled(platform)) == ("ml.g5.xlarge", [(2, 4, 1)])
    with callers.calling(0.2):
        moved = with_instances(spec, "ml.g6.xlarge", 5)
        deploy(platform, STACK, template(tmp_path / "moved", environment, moved))
        assert (runs_on(platform), scaled(platform)) == ("ml.g6.xlarge", [(2, 5, 1)])

        # An image that does not start: the endpoint goes back, and so does the stack.
        missing = ContainerImage(image_uri="000000000000.dkr.ecr.us-east-1.amazonaws.com/inference-missing:1")
        broken = environment.model_copy(update={"containers": {"onnx": missing}})
        with pytest.raises(AssertionError, match="UPDATE_ROLLBACK_COMPLETE"):
            deploy(
                platform,
                STACK,
                template(tmp_path / "broken", broken, with_instances(spec, "ml.g5.2xlarge", 6)),
            )
        assert (runs_on(platform), scaled(platform)) == ("ml.g6.xlarge", [(2, 5, 1)])
    assert callers.failures == []
    assert callers.calls
