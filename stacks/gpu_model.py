"""A GPU model: a SageMaker endpoint over the availability zones, scaled on the requests in flight. Either it
always runs (`always_on`), or it sleeps while nobody calls it (`from_zero`).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from catalog.environment import Environment
from catalog.instances import gpus, supports_kms_volume
from catalog.model import GpuModel
from stacks.bundling import ROOT
from stacks.constructs import always_on, from_zero, metrics
from stacks.constructs.acknowledge import acknowledge, acknowledge_wildcards
from stacks.constructs.alarms import REJECTED, PlatformAlarm
from stacks.constructs.metrics import VARIANT
from stacks.constructs.private_network import PrivateNetwork
from stacks.model import ARTIFACT_FOLDERS, CAPTURE_FILES, ModelStack

INFERENCE_AMIS = {12: "al2-ami-sagemaker-inference-gpu-3-1", 13: "al2023-ami-sagemaker-inference-gpu-4-1"}
"""The instances' operating system and driver, by the CUDA that it runs (12.4 and 13.0).
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProductionVariant.html
"""

SIDES = {"both": ("Input", "Output"), "requests": ("Input",), "answers": ("Output",)}
"""What of an exchange SageMaker is told to capture: it knows no smaller part."""


class GpuModelStack(ModelStack):
    def __init__(self, scope: Construct, environment: Environment, spec: GpuModel) -> None:
        super().__init__(scope, environment, spec)
        self.gpu, self.scaling = spec.gpu, spec.scaling
        # SageMaker would make it too, without key and end.
        log_group = self.log_group("EndpointLogs", self._log_group_name)
        network = PrivateNetwork.of(self)
        role = self._role()
        model = self._model(role, network)
        errors = self.alarm_on_errors()
        undo = [*errors, self._rejected()]
        served: cdk.CfnResource
        if spec.sleeps:
            config = self._config(from_zero.variant(spec), from_zero.host(role, network))
            config.node.add_dependency(role)
            served = from_zero.serve(self, spec, self.resource_name, config, model, undo)
        else:
            config = self._config(always_on.variant(spec, model))
            served = always_on.serve(self, spec, self.resource_name, config, undo)
        served.node.add_dependency(log_group)
        self.watch([*errors, *self._saturation(spec)])

    def _saturation(self, spec: GpuModel) -> list[PlatformAlarm]:
        limits = {
            # metric: (kind, percent, minutes); the two of GPUs are sums over an instance's GPUs.
            "GPUMemoryUtilization": ("gpu-memory", 90 * gpus(self.gpu.instance_type), 10),
            "GPUUtilization": ("gpu-utilization", 95 * gpus(self.gpu.instance_type), 30),
            "MemoryUtilization": ("memory", 90, 10),
            "DiskUtilization": ("disk", 85, 10),
        }
        return [
            *(
                self.cause(
                    kind,
                    metrics.instances(spec, self.names, name),
                    f"{name} of an instance is {percent} % or more for {minutes} minutes.",
                    threshold=percent,
                    periods=minutes,
                )
                for name, (kind, percent, minutes) in limits.items()
            ),
            self.cause(
                "full-scale",
                metrics.at_full_scale(spec, self.names),
                f"all {self.scaling.max} {'copies' if spec.sleeps else 'instances'} run, and are asked more "
                f"than {self.scaling.target_concurrency} requests at once, in ten minutes of fifteen.",
                threshold=1,
                periods=15,
                of_them=10,
            ),
            self.cause(
                "no-capacity",
                metrics.unserved(spec, self.names),
                "requests failed before its container answered them, ten minutes running.",
                threshold=5,
                periods=2,
            ),
            *([self._no_waking(spec)] if spec.sleeps else []),
        ]

    def _rejected(self) -> PlatformAlarm:
        return self.cause(
            REJECTED,
            metrics.rejected(self.spec, self.names),
            "a release found its new version worse than it may be, and has SageMaker take it back.",
            threshold=1,
        )

    def _no_waking(self, spec: GpuModel) -> PlatformAlarm:
        return self.cause(
            "asleep",
            metrics.asleep(spec, self.names, cdk.Duration.minutes(5)),
            "requests found no copy in four of eight times five minutes: it does not wake.",
            # Waking takes two of these, or three; clients that heed Retry-After come back every second one.
            threshold=1,
            periods=8,
            of_them=4,
            runbook="no-capacity",
        )

    def _role(self) -> iam.Role:
        role = iam.Role(self, "Role", assumed_by=self.account_principal("sagemaker.amazonaws.com"))
        for statement in [*self.read_artifacts(), *self.write_captures(), *self._operate()]:
            role.add_to_policy(statement)
        acknowledge_wildcards(
            role,
            {
                self.artifact_folders: ARTIFACT_FOLDERS,
                self.capture_folder: CAPTURE_FILES,
                self._log_streams: "Log streams are named by SageMaker.",
                "*": "Metrics, network interfaces and registry tokens have no resource-level rights; "
                "the metrics' namespace is the boundary.",
            },
        )
        return role

    def _model(self, role: iam.Role, network: PrivateNetwork) -> sagemaker.CfnModel:
        # No name: CloudFormation must be able to make the next one before it deletes this one.
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=self._image(role),
                # What changes the configuration makes a model too: an unchanged one would keep the artifact
                # that was live when it was made.
                environment={**self.runtime_environment, "RUNS_ON": self._runs_on},
                model_data_source=sagemaker.CfnModel.ModelDataSourceProperty(
                    s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
                        s3_uri=self.artifact_uri, s3_data_type="S3Prefix", compression_type="None"
                    )
                ),
            ),
            vpc_config=sagemaker.CfnModel.VpcConfigProperty(
                subnets=network.subnet_ids, security_group_ids=[network.security_group_id]
            ),
        )
        # SageMaker checks the role's rights when the model is made, not only when it starts.
        model.node.add_dependency(role)
        return model

    @property
    def _runs_on(self) -> str:
        """All of the configuration that can change, in short."""
        gpu, capture = self.gpu, self.spec.capture
        chosen = (gpu.model_dump_json(), capture.model_dump_json(), self.scaling.min)
        return f"{gpu.instance_type} {hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]}"

    def _config(
        self, variant: Mapping[str, Any], more: Mapping[str, Any] | None = None
    ) -> sagemaker.CfnEndpointConfig:
        """The endpoint's configuration: a production variant with `variant`'s properties, `more` besides."""
        encrypted = supports_kms_volume(self.gpu.instance_type)
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            # Instance families with local NVMe encrypt it in hardware and refuse a key.
            kms_key_id=self.key("models").key_arn if encrypted else None,
            data_capture_config=self._capture(),
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=VARIANT,
                    instance_type=self.gpu.instance_type,
                    initial_variant_weight=1,
                    volume_size_in_gb=self.gpu.volume_gb,
                    inference_ami_version=inference_ami(self.gpu.container),
                    **variant,
                )
            ],
            **(more or {}),
        )
        if not encrypted:
            acknowledge(
                config,
                {
                    "SageMakerEndpointConfigurationKMSKeyConfigured": f"{self.gpu.instance_type} encrypts "
                    "its local disks in hardware, and SageMaker refuses a key for it."
                },
            )
        return config

    def _capture(self) -> sagemaker.CfnEndpointConfig.DataCaptureConfigProperty | None:
        """SageMaker's own capture: the container sees no other service."""
        property_ = sagemaker.CfnEndpointConfig
        if not self.spec.capture.percent:
            return None
        return property_.DataCaptureConfigProperty(
            enable_capture=True,
            initial_sampling_percentage=self.spec.capture.percent,
            destination_s3_uri=self.captures,
            kms_key_id=self.key("data").key_arn,
            capture_options=[
                property_.CaptureOptionProperty(capture_mode=mode) for mode in SIDES[self.spec.capture.keep]
            ],
            # Kept as text; what is not named here would be base64.
            capture_content_type_header=property_.CaptureContentTypeHeaderProperty(
                json_content_types=["application/json"]
            ),
        )

    @property
    def _log_group_name(self) -> str:
        return self.names.model_log_group(self.spec.name, self.spec.home)

    @property
    def _log_streams(self) -> str:
        return self.regional_arn("logs", f"log-group:{self._log_group_name}:*")

    @property
    def _namespaces(self) -> str | list[str]:
        """Where SageMaker publishes what instances, and copies, measure about themselves."""
        return [metrics.INSTANCES, metrics.COPIES] if self.spec.sleeps else metrics.INSTANCES

    def _operate(self) -> list[iam.PolicyStatement]:
        """What SageMaker does in the role's name: find files, write logs and metrics, join the network."""
        return [
            iam.PolicyStatement(
                sid="FindArtifacts",
                actions=["s3:ListBucket"],
                resources=[self.bucket_arn("models")],
                conditions={"StringLike": {"s3:prefix": f"{self.spec.name}/*"}},
            ),
            iam.PolicyStatement(
                sid="WriteLogs",
                actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[self._log_streams],
            ),
            iam.PolicyStatement(
                sid="PublishMetrics",
                actions=["cloudwatch:PutMetricData"],
                resources=["*"],
                conditions={"StringEquals": {"cloudwatch:namespace": self._namespaces}},
            ),
            iam.PolicyStatement(
                sid="AttachToTheNetwork",
                actions=[
                    "ec2:CreateNetworkInterface",
                    "ec2:CreateNetworkInterfacePermission",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DeleteNetworkInterfacePermission",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeVpcs",
                    "ec2:DescribeDhcpOptions",
                    "ec2:DescribeSubnets",
                    "ec2:DescribeSecurityGroups",
                ],
                resources=["*"],
            ),
        ]

    def _image(self, role: iam.Role) -> str:
        """The URI of the container image: given by configuration, or built here by the deployment."""
        container = self.gpu.container
        source = self.environment_config.containers[container]
        if there := source.in_ecr:
            where = f"{there.region}:{there.account}:repository/{there.repository}"
            repository_arn, uri = f"arn:{self.partition}:ecr:{where}", there.uri
        else:
            folder = f"inference_containers/{container}"
            image = ecr_assets.DockerImageAsset(
                self,
                "Image",
                directory=str(ROOT),
                file=f"{folder}/Dockerfile",
                # Only what the Dockerfile copies takes part in the hash: an edit elsewhere must not
                # redeploy a GPU.
                exclude=["**", "!inference_runtime/**/*.py", f"!{folder}/**", "**/__pycache__"],
                ignore_mode=cdk.IgnoreMode.DOCKER,
                platform=ecr_assets.Platform.LINUX_AMD64,
                build_args={"DEVICE": "cuda"}
                | ({"BASE_IMAGE": source.base_image} if source.base_image else {}),
            )
            repository_arn, uri = image.repository.repository_arn, image.image_uri
        role.add_to_policy(
            iam.PolicyStatement(
                sid="PullImage",
                actions=[
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                resources=[repository_arn],
            )
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="LogInToRegistry",
                actions=["ecr:GetAuthorizationToken"],
                resources=["*"],
            )
        )
        return uri


def inference_ami(container: str) -> str:
    """The `InferenceAmiVersion` whose driver runs an image's CUDA.

    The one setting is the version of onnxruntime-gpu in requirements-cuda.in: its lock tells the CUDA.
    An image that is built elsewhere has no lock here, and gets the newest.

    Raises:
        ValueError: no AMI is known for that CUDA.
    """
    lock = ROOT / "inference_containers" / container / "requirements-cuda.txt"
    if not lock.exists():
        return INFERENCE_AMIS[max(INFERENCE_AMIS)]
    found = re.search(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)\.", lock.read_text(), re.MULTILINE)
    cuda = int(found[1]) if found else None
    if cuda not in INFERENCE_AMIS:
        raise ValueError(
            f"{lock}: CUDA {cuda} has no AMI in INFERENCE_AMIS; add it, or pin another onnxruntime-gpu"
        )
    return INFERENCE_AMIS[cuda]
