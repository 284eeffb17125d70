"""What a model's stack promises: on GPU scaled over zones, on CPU behind an alias; what is live is state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Match, Template
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from catalog.environment import Environment
from catalog.model import CpuModel, GpuModel, Scaling
from stacks import gpu_model
from stacks.constructs.problems import WAKING_SECONDS
from stacks.cpu_model import CpuModelStack
from stacks.gpu_model import GpuModelStack
from tests.assembly import Assembly

GPU_STACK = "inference-prod-model-text-embedding-gpu"
CPU_STACK = "inference-prod-model-file-type-cpu"


def test_gpu_endpoint_scales_between_its_bounds(prod: Assembly) -> None:
    scaled = {
        one.properties["Step"]: one
        for one in prod.resources("Custom::InstanceScaling")
        if one.stack == GPU_STACK
    }
    assert scaled.keys() == {"before", "after"}
    for one in scaled.values():
        assert (one.properties["Endpoint"], one.properties["Variant"]) == (
            "inference-prod-text-embedding",
            "AllTraffic",
        )
        assert (one.properties["Min"], one.properties["Max"]) == ("2", "4")


def test_an_endpoint_is_no_scalable_target_while_it_is_updated(
    gpu_stack: Callable[..., Template],
) -> None:
    template = gpu_stack()
    scaled = template.find_resources("Custom::InstanceScaling")
    steps = {resource["Properties"]["Step"]: name for name, resource in scaled.items()}
    [(name, endpoint)] = template.find_resources("AWS::SageMaker::Endpoint").items()
    assert steps["before"] in endpoint["DependsOn"]
    assert name in scaled[steps["after"]]["DependsOn"]
    for resource in scaled.values():
        assert resource["Properties"]["InstanceType"] == "ml.g5.xlarge"


def test_gpu_endpoint_rolls_back_on_alarms_of_its_own_stack(prod: Assembly) -> None:
    endpoint = prod.one("AWS::SageMaker::Endpoint", GPU_STACK).properties
    alarms = endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    own = {alarm.logical_id for alarm in prod.resources("AWS::CloudWatch::Alarm") if alarm.stack == GPU_STACK}
    named = {alarm["AlarmName"]["Ref"] for alarm in alarms}
    assert named
    assert named <= own
    assert endpoint["RetainAllVariantProperties"] is True
    for alarm in (one for one in prod.resources("AWS::CloudWatch::Alarm") if one.logical_id in named):
        assert alarm.properties["TreatMissingData"] == "notBreaching", alarm.logical_id


@pytest.mark.parametrize(
    ("release", "routing"),
    [
        ({}, {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}),
        (
            {"canary_percent": 10, "bake_minutes": 60},
            {
                "Type": "CANARY",
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
                "WaitIntervalInSeconds": 3600,
            },
        ),
    ],
)
def test_gpu_endpoint_shifts_traffic_as_the_release_section_says(
    gpu_stack: Callable[..., Template], release: dict[str, int], routing: dict[str, Any]
) -> None:
    [endpoint] = gpu_stack(release=release).find_resources("AWS::SageMaker::Endpoint").values()
    policy = endpoint["Properties"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == routing
    # A deployment that SageMaker gives up while it bakes is a rollback that nobody asked for.
    assert policy["MaximumExecutionTimeoutInSeconds"] > 2 * routing["WaitIntervalInSeconds"] + 600


def test_a_model_that_sleeps_is_a_component_that_one_failed_request_wakes(
    gpu_stack: Callable[..., Template],
) -> None:
    template = gpu_stack(scaling={"min": 0, "max": 3}, release={"bake_minutes": 10})

    def only(kind: str) -> tuple[str, dict[str, Any]]:
        [(logical_id, resource)] = template.find_resources(kind).items()
        return logical_id, resource["Properties"]

    _, config = only("AWS::SageMaker::EndpointConfig")
    model_id, model = only("AWS::SageMaker::Model")
    [variant] = config["ProductionVariants"]
    assert "ModelName" not in variant
    assert variant["ManagedInstanceScaling"] == {
        "Status": "ENABLED",
        "MinInstanceCount": 0,
        "MaxInstanceCount": 3,
    }
    # What a component takes from its endpoint is what a model of its own would have.
    assert config["ExecutionRoleArn"] == model["ExecutionRoleArn"]
    assert config["VpcConfig"] == model["VpcConfig"]
    assert config["EnableNetworkIsolation"] is True

    name = "inference-prod-0-example-model"
    endpoint_id, endpoint = only("AWS::SageMaker::Endpoint")
    _, component = only("AWS::SageMaker::InferenceComponent")
    assert (endpoint["EndpointName"], component["InferenceComponentName"]) == (name, name)
    # By reference: it is deleted before its endpoint.
    assert component["EndpointName"] == {"Fn::GetAtt": [endpoint_id, "EndpointName"]}
    assert component["Specification"]["ModelName"] == {"Fn::GetAtt": [model_id, "ModelName"]}
    deployment = component["DeploymentConfig"]
    assert deployment["RollingUpdatePolicy"]["MaximumBatchSize"] == {"Type": "COPY_COUNT", "Value": 1}
    assert deployment["RollingUpdatePolicy"]["WaitIntervalInSeconds"] == 600
    assert len(deployment["AutoRollbackConfiguration"]["Alarms"]) == 3

    _, target = only("AWS::ApplicationAutoScaling::ScalableTarget")
    assert target["ResourceId"] == f"inference-component/{name}"
    assert target["ScalableDimension"] == "sagemaker:inference-component:DesiredCopyCount"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 3)
    policies = template.find_resources("AWS::ApplicationAutoScaling::ScalingPolicy")
    by_type = {
        policy["Properties"]["PolicyType"]: (i, policy["Properties"]) for i, policy in policies.items()
    }
    tracking = by_type["TargetTrackingScaling"][1]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["PredefinedMetricSpecification"]["PredefinedMetricType"] == (
        "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    )
    wake_id, wake = by_type["StepScaling"]
    step = wake["StepScalingPolicyConfiguration"]
    assert (step["AdjustmentType"], step["StepAdjustments"]) == (
        "ChangeInCapacity",
        [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
    )
    # As long as it takes to wake: who knocks meanwhile wakes no second copy.
    assert step["Cooldown"] == WAKING_SECONDS
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "AlarmActions": [{"Ref": wake_id}],
            "Namespace": "AWS/SageMaker",
            "MetricName": "NoCapacityInvocationFailures",
            "Dimensions": [{"Name": "InferenceComponentName", "Value": name}],
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "Threshold": 1,
            "Statistic": "Sum",
            "Period": 60,
            "EvaluationPeriods": 1,
        },
    )


def test_both_targets_serve_the_live_version_by_reference(prod: Assembly) -> None:
    # Not by a parameter of the stack: a release would change it, and the next deployment serve anew.
    for stack, model in ((GPU_STACK, "text-embedding"), (CPU_STACK, "file-type")):
        variables = (
            prod.one("AWS::SageMaker::Model", stack).properties["PrimaryContainer"]["Environment"]
            if stack == GPU_STACK
            else prod.function(f"inference-prod-{model}").properties["Environment"]["Variables"]
        )
        assert variables["MODEL_SHA256"] == f"{{{{resolve:ssm:/inference/prod/models/{model}/live}}}}"


def test_no_template_writes_a_live_parameter(prod: Assembly) -> None:
    names = [p.properties["Name"] for p in prod.resources("AWS::SSM::Parameter")]
    assert names
    assert not [name for name in names if name.endswith("/live")]


def test_cpu_model_is_called_through_the_alias_only(prod: Assembly) -> None:
    alias = prod.one("AWS::Lambda::Alias", CPU_STACK).properties
    assert alias["Name"] == "live"
    assert prod.one("AWS::Lambda::Version", CPU_STACK).raw["DeletionPolicy"] == "Retain"
    uris = [
        operation["x-amazon-apigateway-integration"]["uri"]
        for path, item in prod.one("AWS::ApiGateway::RestApi").properties["Body"]["paths"].items()
        for operation in item.values()
        if path.startswith("/v2/models/file-type")
    ]
    assert len(uris) == 3
    assert all("function:inference-prod-file-type:live/invocations" in str(uri) for uri in uris)


def test_the_phases_of_inferences_are_metrics_where_the_environment_says_so(
    prod_environment: Environment,
) -> None:
    spec = CpuModel.model_validate(
        {"name": "timed", "description": "Timed.", "owner": "ml", "version": "1.0.0", "target": "cpu"}
    )
    for said in (False, True):
        functions = prod_environment.functions.model_copy(update={"phase_metrics": said})
        environment = prod_environment.model_copy(update={"functions": functions})
        template = Template.from_stack(CpuModelStack(cdk.App(), environment, spec)).to_json()
        functions_ = [r for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
        environments = [function["Properties"]["Environment"]["Variables"] for function in functions_]
        [variables] = [each for each in environments if "METRICS_NAMESPACE" in each]
        assert variables.get("PHASE_METRICS") == ("1" if said else None)


def test_a_model_that_moves_can_have_both_stacks_at_once(prod_environment: Environment) -> None:
    common = {"name": "moving", "description": "Moves.", "owner": "ml", "version": "1.0.0"}
    cpu = CpuModel.model_validate({**common, "target": "cpu"})
    gpu = GpuModel.model_validate({**common, "target": "gpu", "gpu": {"instance_type": "ml.g5.xlarge"}})
    asleep = gpu.model_copy(update={"scaling": Scaling(min=0)})
    app = cdk.App()
    stacks = (
        CpuModelStack(app, prod_environment, cpu),
        GpuModelStack(app, prod_environment, gpu),
        GpuModelStack(app, prod_environment, asleep),
    )
    assert len({stack.stack_name for stack in stacks}) == 3

    def names(stack: cdk.Stack) -> set[tuple[str, ...]]:
        """Type and name of every resource that the template names, by the types' own schemas."""
        found = set()
        for resource in Template.from_stack(stack).to_json()["Resources"].values():
            schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource["Type"]).schema
            properties = resource.get("Properties", {})
            parts = [properties.get(path.rsplit("/", 1)[-1]) for path in schema["primaryIdentifier"]]
            if all(isinstance(part, str) for part in parts):
                found.add((resource["Type"], *parts))
        return found

    cpu_names, gpu_names, asleep_names = map(names, stacks)
    assert ("AWS::Lambda::Function", "inference-prod-moving") in cpu_names
    assert min(len(gpu_names), len(asleep_names)) > 1
    assert not cpu_names & (gpu_names | asleep_names)
    assert not gpu_names & asleep_names


@pytest.fixture
def gpu_stack(prod_environment: Environment) -> Callable[..., Template]:
    def synthesize(instance_type: str = "ml.g5.xlarge", **sections: Any) -> Template:
        spec = GpuModel.model_validate(
            {
                "name": "example-model",
                "description": "An example.",
                "owner": "ml",
                "version": "1.0.0",
                "target": "gpu",
                "gpu": {"instance_type": instance_type},
                **sections,
            }
        )
        return Template.from_stack(GpuModelStack(cdk.App(), prod_environment, spec))

    return synthesize


@pytest.fixture
def prod_environment() -> Environment:
    return Environment.model_validate(
        {
            "name": "prod",
            "account": "111122223333",
            "region": "eu-west-1",
            "availability_zones": ["eu-west-1a", "eu-west-1b"],
            "network": {"cidr": "10.0.0.0/16"},
            "containers": {
                "onnx": {"image_uri": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/inference-onnx:1"}
            },
        }
    )


@pytest.mark.parametrize(
    ("keep", "modes"), [("both", ["Input", "Output"]), ("requests", ["Input"]), ("answers", ["Output"])]
)
def test_sagemaker_captures_the_sides_that_may_be_kept(
    gpu_stack: Callable[..., Template], keep: str, modes: list[str]
) -> None:
    template = gpu_stack(capture={"percent": 20, "keep": keep})
    [config] = template.find_resources("AWS::SageMaker::EndpointConfig").values()
    options = config["Properties"]["DataCaptureConfig"]["CaptureOptions"]
    assert [option["CaptureMode"] for option in options] == modes


def test_volume_key_is_left_out_where_the_instance_has_nvme(gpu_stack: Callable[..., Template]) -> None:
    gpu_stack("ml.g5.xlarge").has_resource_properties(
        "AWS::SageMaker::EndpointConfig", {"KmsKeyId": Match.absent()}
    )
    gpu_stack("ml.p3.2xlarge").has_resource_properties(
        "AWS::SageMaker::EndpointConfig", {"KmsKeyId": Match.any_value()}
    )


def test_a_given_image_is_the_only_repository_that_may_be_pulled(
    gpu_stack: Callable[..., Template],
) -> None:
    gpu_stack("ml.g5.xlarge").has_resource_properties(
        "AWS::IAM::Policy",
        {
            "PolicyDocument": {
                "Statement": Match.array_with(
                    [
                        Match.object_like(
                            {
                                "Sid": "PullImage",
                                "Resource": {
                                    "Fn::Join": [
                                        "",
                                        [
                                            "arn:",
                                            {"Ref": "AWS::Partition"},
                                            ":ecr:eu-west-1:111122223333:repository/inference-onnx",
                                        ],
                                    ]
                                },
                            }
                        )
                    ]
                )
            }
        },
    )


def test_the_instances_driver_is_the_one_for_the_images_cuda(
    prod: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [variant] = prod.one("AWS::SageMaker::EndpointConfig", GPU_STACK).properties["ProductionVariants"]
    assert variant["InferenceAmiVersion"] == gpu_model.inference_ami("onnx")
    assert variant["InferenceAmiVersion"].endswith("gpu-4-1")

    monkeypatch.setattr(gpu_model, "ROOT", tmp_path)
    lock = tmp_path / "inference_containers" / "onnx" / "requirements-cuda.txt"
    lock.parent.mkdir(parents=True)
    lock.write_text("numpy==2.4.6\nnvidia-cuda-runtime-cu12==12.9.79 \\\n")
    assert gpu_model.inference_ami("onnx").endswith("gpu-3-1")
    lock.write_text("nvidia-cuda-runtime==14.0.1 \\\n")
    with pytest.raises(ValueError, match="CUDA 14 has no AMI"):
        gpu_model.inference_ami("onnx")
