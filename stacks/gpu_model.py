"""A GPU model: a SageMaker endpoint over the availability zones, scaled on the requests in flight."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from catalog.environment import Environment
from catalog.instances import gpus, supports_kms_volume
from catalog.model import GpuModel
from stacks.bundling import ROOT
from stacks.constructs import metrics
from stacks.constructs.acknowledge import acknowledge, acknowledge_wildcards
from stacks.constructs.alarms import PlatformAlarm
from stacks.constructs.metrics import VARIANT
from stacks.constructs.private_network import PrivateNetwork
from stacks.model import ARTIFACT_FOLDERS, CAPTURE_FILES, ModelStack

INFERENCE_AMI_VERSION = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Driver of the instances: CUDA 13, which inference_containers/onnx/requirements-cuda.txt is built for. One
setting.
"""


class GpuModelStack(ModelStack):
    def __init__(self, scope: Construct, environment: Environment, spec: GpuModel) -> None:
        super().__init__(scope, environment, spec)
        self.gpu, self.scaling = spec.gpu, spec.scaling
        # SageMaker would make it too, without key and end.
        log_group = self.log_group("EndpointLogs", self._log_group_name)
        model = self._model()
        errors = self.alarm_on_errors()
        endpoint = self._endpoint(self._config(model), errors)
        endpoint.node.add_dependency(log_group)
        self._scale(endpoint)
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
                f"all {self.scaling.max} instances run, and are asked more than "
                f"{self.scaling.target_concurrency} requests at once, in ten minutes of fifteen.",
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
        ]

    def _model(self) -> sagemaker.CfnModel:
        network = PrivateNetwork.of(self)
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
        # No name: CloudFormation must be able to make the next one before it deletes this one.
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            enable_network_isolation=True,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=self._image(role),
                environment=self.runtime_environment,
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

    def _config(self, model: sagemaker.CfnModel) -> sagemaker.CfnEndpointConfig:
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
                    model_name=model.attr_model_name,
                    instance_type=self.gpu.instance_type,
                    initial_instance_count=self.scaling.min,
                    initial_variant_weight=1,
                    volume_size_in_gb=self.gpu.volume_gb,
                    inference_ami_version=INFERENCE_AMI_VERSION,
                    container_startup_health_check_timeout_in_seconds=self.gpu.startup_timeout_seconds,
                    model_data_download_timeout_in_seconds=self.gpu.startup_timeout_seconds,
                )
            ],
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
                property_.CaptureOptionProperty(capture_mode=mode) for mode in ("Input", "Output")
            ],
            # Kept as text; what is not named here would be base64.
            capture_content_type_header=property_.CaptureContentTypeHeaderProperty(
                json_content_types=["application/json"]
            ),
        )

    def _endpoint(
        self, config: sagemaker.CfnEndpointConfig, alarms: Sequence[cloudwatch.Alarm]
    ) -> sagemaker.CfnEndpoint:
        property_, bake = sagemaker.CfnEndpoint, 60 * self.spec.release.bake_minutes
        return sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.resource_name,
            endpoint_config_name=config.attr_endpoint_config_name,
            # The instance count belongs to autoscaling: an update must not shrink a busy endpoint back to
            # `min`.
            retain_all_variant_properties=True,
            deployment_config=property_.DeploymentConfigProperty(
                blue_green_update_policy=property_.BlueGreenUpdatePolicyProperty(
                    traffic_routing_configuration=self._shift(bake),
                    termination_wait_in_seconds=60,
                    # Start, bake twice, and drain.
                    maximum_execution_timeout_in_seconds=max(
                        3600, self.gpu.startup_timeout_seconds + 2 * bake + 1200
                    ),
                ),
                auto_rollback_configuration=property_.AutoRollbackConfigProperty(
                    alarms=[property_.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
                ),
            ),
        )

    def _shift(self, bake_seconds: int) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
        percent, property_ = self.spec.release.canary_percent, sagemaker.CfnEndpoint
        canary = property_.CapacitySizeProperty(type="CAPACITY_PERCENT", value=percent) if percent else None
        return property_.TrafficRoutingConfigProperty(
            type="CANARY" if canary else "ALL_AT_ONCE",
            canary_size=canary,
            wait_interval_in_seconds=bake_seconds,
        )

    def _scale(self, endpoint: sagemaker.CfnEndpoint) -> None:
        target = scaling.ScalableTarget(
            self,
            "Scaling",
            service_namespace=scaling.ServiceNamespace.SAGEMAKER,
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{self.resource_name}/variant/{VARIANT}",
            min_capacity=self.scaling.min,
            max_capacity=self.scaling.max,
            role=iam.Role.from_role_arn(
                self,
                "ScalingRole",
                # Application Auto Scaling's service-linked role, which it makes by itself.
                f"arn:{self.partition}:iam::{self.account}:role/aws-service-role/"
                "sagemaker.application-autoscaling.amazonaws.com/"
                "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
            ),
        )
        target.node.add_dependency(endpoint)
        target.scale_to_track_metric(
            "Concurrency",
            target_value=self.scaling.target_concurrency,
            # Ten-second data: it sees a burst a minute before the invocation count does.
            predefined_metric=scaling.PredefinedMetric.SAGEMAKER_VARIANT_CONCURRENT_REQUESTS_PER_MODEL_HIGH_RESOLUTION,
            scale_in_cooldown=cdk.Duration.seconds(self.scaling.scale_in_cooldown_seconds),
            scale_out_cooldown=cdk.Duration.seconds(self.scaling.scale_out_cooldown_seconds),
        )

    @property
    def _log_group_name(self) -> str:
        return self.names.model_log_group(self.spec.name, self.spec.target)

    @property
    def _log_streams(self) -> str:
        return self.regional_arn("logs", f"log-group:{self._log_group_name}:*")

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
                conditions={"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}},
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
