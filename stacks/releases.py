"""Releases: the state machine that lets a model's versions go live, its function, and the history of them.

What is live is state (docs/decisions/0002): deployments make functions and endpoints, releases decide which
artifact they run. What a release must know of a model is a parameter that this stack writes.
"""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from catalog.environment import Environment
from catalog.model import CpuModel, ModelSpec
from catalog.names import INVOKE, on_target, own_scope
from stacks.base import PlatformStack
from stacks.constructs import metrics, release_machine
from stacks.constructs.acknowledge import acknowledge, acknowledge_wildcards
from stacks.constructs.alarms import REJECTED, TOPIC, PlatformAlarm, of_model
from stacks.constructs.client_credentials import read_credentials
from stacks.constructs.function import PlatformFunction
from stacks.constructs.intake import Intake, Store
from stacks.constructs.private_network import PrivateNetwork
from stacks.constructs.updates import Update

FAILED = "releases-failed"
STEP_SECONDS = 120
COMPARE_SECONDS = 55
"""Within the minute for which the step that asks waits for an answer."""
KEY = "data"
"""Purpose of the key of the history."""


class ReleasesStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "releases", environment, description="Releases of model versions")
        self.table = self._table()
        for model in models:
            self._settings(model)
        self.compare = self._comparer()
        self.release = self._function(models)
        self.store = Store(self, self.table, self.key(KEY).key_arn)
        self.machine = self._machine()
        Intake(self, models, self.regional_arn("states", f"stateMachine:{self.names.release_machine}"))
        self._alarm()

    def _table(self) -> dynamodb.Table:
        table = dynamodb.Table(
            self,
            "History",
            table_name=self.names.releases,
            partition_key=dynamodb.Attribute(name="model", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="entry", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=self.key(KEY),
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=self.environment_config.retention.keep_data,
            removal_policy=self.removal_policy,
        )
        acknowledge(
            table,
            {
                "DynamoDBInBackupPlan": "Point-in-time recovery keeps 35 days; what serves is in Parameter "
                "Store and in the services themselves, so that losing the history loses no version."
            },
        )
        return table

    def _settings(self, model: ModelSpec) -> None:
        """What the function's `Settings` are; the model's name is in the path."""
        update = None if isinstance(model, CpuModel) else Update.of(model, self.environment_config)
        settings = {
            "home": model.home,
            "name": self.names.model(model.name, model.home),
            "validator": self.names.validator(model.name, model.home),
            "stack": self.names.resource(on_target(model.name, model.home)),
            "log_group": self.names.model_log_group(model.name, model.home),
            "canary_percent": model.release.canary_percent,
            "bake_seconds": model.release.bake_seconds(self.environment_config.releases.bake_minutes),
            "drain_seconds": update.drain if update else 0,
            "update_seconds": update.longest if update else 0,
            "alarms": [
                self.names.resource(of_model(model, kind))
                for kind in (
                    *metrics.model(model, self.names).errors,
                    *([REJECTED] if model.target == "gpu" else ()),
                )
            ],
            "public": self._may_ask(model),
            "availability_percent": model.slo.availability_percent,
            "p99_ms": model.slo.p99_ms,
            "minimum_requests": model.release.minimum_requests,
            "prediction_shift": model.release.prediction_shift,
            "captures": f"captures/{self.names.model(model.name, model.home)}/{metrics.VARIANT}/"
            if model.shows_predictions
            else None,
        }
        ssm.StringParameter(
            self,
            f"Settings-{model.name}",
            parameter_name=self.names.release_parameter(model.name),
            string_value=json.dumps(settings, sort_keys=True),
        )

    def _may_ask(self, model: ModelSpec) -> bool:
        """Whether the probe's client, whose credentials releases use, may call a model through the API."""
        probe = self.environment_config.probe
        if probe is None or model.sleeps:
            # What sleeps is answered for by the catalog function, which knows what should run.
            return False
        [client] = [one for one in self.environment_config.clients if one.name == probe.client]
        return (own_scope(model.name) if model.access.scope == "own" else INVOKE) in client.scopes

    def _comparer(self) -> PlatformFunction:
        """It sees what models answered, so it is where models are; what it says are numbers."""
        data = self.bucket_arn("data")
        captures, manifests = f"{data}/captures/*", f"{self.bucket_arn('models')}/*/manifest.json"
        return PlatformFunction(
            self,
            "Compare",
            # Drift between two versions: the same features and the same tests.
            source="drift",
            module="versions",
            description="Says how far the predictions of two versions of a model are apart",
            environment={
                "DATA_BUCKET": self.bucket_name("data"),
                "MODELS_BUCKET": self.bucket_name("models"),
            },
            memory_mb=2048,
            timeout_seconds=COMPARE_SECONDS,
            log_group_name=self.names.log_group("compare-predictions"),
            network=PrivateNetwork.of(self),
            statements=[
                iam.PolicyStatement(
                    sid="FindCaptures",
                    actions=["s3:ListBucket"],
                    resources=[data],
                    conditions={"StringLike": {"s3:prefix": "captures/*"}},
                ),
                iam.PolicyStatement(
                    sid="ReadCaptures", actions=["s3:GetObject"], resources=[captures, manifests]
                ),
                iam.PolicyStatement(
                    sid="Decrypt",
                    actions=["kms:Decrypt"],
                    resources=[self.key("data").key_arn, self.key("models").key_arn],
                ),
            ],
            wildcards={
                captures: "Captures are files named by their time, of every model that is released.",
                manifests: "One file of each artifact, whose folder is named by its hash.",
            },
        )

    def _function(self, models: Sequence[ModelSpec]) -> PlatformFunction:
        probe = self.environment_config.probe
        topic = self.regional_arn("sns", self.names.resource(TOPIC))
        variables = {
            "TABLE": self.names.releases,
            "MODELS_PATH": self.names.parameter("models"),
            "MODELS_BUCKET": self.bucket_name("models"),
            "TOPIC": topic,
            "ENVIRONMENT": self.environment_config.name,
            "METRICS_NAMESPACE": self.names.metrics_namespace,
            "API_URL": self.shared("api/url"),
            "COMPARE": self.compare.function.function_name,
        }
        groups = [
            self.regional_arn("logs", f"log-group:{home}/{self.names.prefix}-*")
            for home in ("/aws/lambda", "/aws/sagemaker/*")
        ]
        live, settings = (
            self.regional_arn("ssm", f"parameter{path}")
            for path in (self.names.live_parameter("*"), self.names.release_parameter("*"))
        )
        executions = self.regional_arn("states", f"execution:{self.names.release_machine}:*")
        stacks = self.regional_arn("cloudformation", f"stack/{self.names.prefix}-model-*/*")
        every_model = "Of every model of the environment: an inline policy has no room for a list."
        wildcards = {
            live: every_model,
            settings: every_model,
            stacks: every_model,
            executions: "Executions are named when they start.",
            "*": "A query's results, and alarms, are read by no resource.",
        } | dict.fromkeys(groups, every_model)
        statements = [
            iam.PolicyStatement(
                sid="KeepHistory",
                actions=[
                    "dynamodb:GetItem",
                    "dynamodb:PutItem",
                    "dynamodb:UpdateItem",
                    "dynamodb:DeleteItem",
                    "dynamodb:Query",
                ],
                resources=[self.table.table_arn],
            ),
            iam.PolicyStatement(
                sid="DecryptHistory",
                actions=["kms:Decrypt"],
                resources=[self.key(KEY).key_arn],
                conditions={"StringEquals": {"kms:ViaService": f"dynamodb.{self.region}.{self.url_suffix}"}},
            ),
            iam.PolicyStatement(
                sid="SeeOtherReleases", actions=["states:DescribeExecution"], resources=[executions]
            ),
            iam.PolicyStatement(sid="ReadModels", actions=["ssm:GetParameter"], resources=[live, settings]),
            iam.PolicyStatement(sid="MakeLive", actions=["ssm:PutParameter"], resources=[live]),
            iam.PolicyStatement(
                sid="FindArtifacts", actions=["s3:ListBucket"], resources=[self.bucket_arn("models")]
            ),
            iam.PolicyStatement(
                sid="TellEveryone",
                actions=["events:PutEvents"],
                resources=[self.regional_arn("events", "event-bus/default")],
                conditions={"StringEquals": {"events:source": "inference.platform"}},
            ),
            iam.PolicyStatement(
                sid="KeepDeploymentsOut",
                actions=[
                    "cloudformation:DescribeStacks",
                    "cloudformation:GetStackPolicy",
                    "cloudformation:SetStackPolicy",
                ],
                resources=[stacks],
            ),
            iam.PolicyStatement(
                sid="ReadJudgements",
                actions=["logs:GetQueryResults", "cloudwatch:DescribeAlarms"],
                resources=["*"],
            ),
            iam.PolicyStatement(
                sid="ComparePredictions",
                actions=["lambda:InvokeFunction"],
                resources=[self.compare.function.function_arn],
            ),
            iam.PolicyStatement(sid="CountRequests", actions=["logs:StartQuery"], resources=groups),
            iam.PolicyStatement(sid="Notify", actions=["sns:Publish"], resources=[topic]),
            iam.PolicyStatement(
                sid="EncryptNotifications",
                actions=["kms:GenerateDataKey", "kms:Decrypt"],
                resources=[self.key("alarms").key_arn],
            ),
        ]
        if probe is not None:
            variables["SECRET_ID"] = self.names.client_secret(probe.client)
            reading, reasons = read_credentials(self, probe.client)
            statements += reading
            wildcards |= reasons
        on_gpus = [model for model in models if model.target == "gpu"]
        if on_gpus:
            changes = self._change_gpu_models(on_gpus)
            statements += changes
            named = {arn for change in changes for arn in change.resources if arn.endswith("*")} - {"*"}
            wildcards |= dict.fromkeys(sorted(named), "Releases and CloudFormation name them.")
        if any(model.target == "cpu" for model in models):
            statements += self._change_functions()
            wildcards |= dict.fromkeys((self._functions, f"{self._functions}:*"), every_model)
        return PlatformFunction(
            self,
            "Release",
            source="release",
            description="Does the steps of a release (Step Functions)",
            environment=variables,
            memory_mb=512,
            timeout_seconds=STEP_SECONDS,
            log_group_name=self.names.log_group("release"),
            statements=statements,
            wildcards=wildcards,
            # It asks models which artifact they run at the address that clients use.
            public=probe is not None,
        )

    @property
    def _functions(self) -> str:
        """The models' functions, which are called as the environment's others are."""
        return self.regional_arn("lambda", f"function:{self.names.prefix}-*")

    def _change_functions(self) -> list[iam.PolicyStatement]:
        """What a release does with CPU models; never their code, nor their roles, which it may not pass."""
        return [
            iam.PolicyStatement(
                sid="ChangeFunctions",
                actions=[
                    "lambda:GetFunctionConfiguration",
                    "lambda:ListVersionsByFunction",
                    "lambda:PublishVersion",
                    "lambda:UpdateFunctionConfiguration",
                    "lambda:GetAlias",
                    "lambda:UpdateAlias",
                ],
                resources=[self._functions],
            ),
            iam.PolicyStatement(
                sid="ChangeVersions",
                actions=[
                    # With a qualifier: of a version, never of a function.
                    "lambda:DeleteFunction",
                    "lambda:GetProvisionedConcurrencyConfig",
                    "lambda:PutProvisionedConcurrencyConfig",
                    "lambda:DeleteProvisionedConcurrencyConfig",
                    "lambda:InvokeFunction",
                ],
                resources=[f"{self._functions}:*"],
            ),
        ]

    def _of_sagemaker(self, *kinds: str, name: str = "") -> list[str]:
        """Whatever the environment's names begin, or what is called so."""
        return [
            self.regional_arn("sagemaker", f"{kind}/{name or self.names.prefix + '-*'}") for kind in kinds
        ]

    @property
    def _execution_roles(self) -> str:
        """Roles of GPU models, which CloudFormation names after their stacks."""
        return f"arn:{self.partition}:iam::{self.account}:role/{self.names.prefix}-model-*"

    def _change_gpu_models(self, models: Sequence[ModelSpec]) -> list[iam.PolicyStatement]:
        """What a release does with GPU models: it makes models like those that serve."""
        statements = [
            iam.PolicyStatement(
                sid="SeeModels",
                actions=["sagemaker:DescribeModel"],
                # Those that a deployment made, CloudFormation named.
                resources=self._of_sagemaker("model", name="*"),
            ),
            iam.PolicyStatement(sid="ListModels", actions=["sagemaker:ListModels"], resources=["*"]),
            iam.PolicyStatement(
                sid="MakeModels",
                actions=["sagemaker:CreateModel", "sagemaker:AddTags", "sagemaker:DeleteModel"],
                resources=self._of_sagemaker("model"),
            ),
            iam.PolicyStatement(
                sid="LetModelsRunAsBefore",
                actions=["iam:PassRole"],
                resources=[self._execution_roles],
                conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
            ),
        ]
        if any(not model.sleeps for model in models):
            statements += self._change_endpoints()
        if any(model.sleeps for model in models):
            statements.append(
                iam.PolicyStatement(
                    sid="UpdateComponents",
                    actions=["sagemaker:DescribeInferenceComponent", "sagemaker:UpdateInferenceComponent"],
                    resources=self._of_sagemaker("inference-component"),
                )
            )
        if not all(self._may_ask(model) for model in models):
            statements.append(
                iam.PolicyStatement(
                    sid="AskEndpoints",
                    actions=["sagemaker:InvokeEndpoint"],
                    resources=self._of_sagemaker("endpoint", "inference-component"),
                )
            )
        return statements

    def _change_endpoints(self) -> list[iam.PolicyStatement]:
        """What it does with models that have an endpoint to themselves: configurations, likewise."""
        return [
            iam.PolicyStatement(
                sid="SeeConfigurations",
                actions=["sagemaker:DescribeEndpointConfig"],
                resources=self._of_sagemaker("endpoint-config", name="*"),
            ),
            iam.PolicyStatement(
                sid="ListConfigurations", actions=["sagemaker:ListEndpointConfigs"], resources=["*"]
            ),
            iam.PolicyStatement(
                sid="MakeConfigurations",
                actions=[
                    "sagemaker:CreateEndpointConfig",
                    "sagemaker:AddTags",
                    "sagemaker:DeleteEndpointConfig",
                ],
                resources=self._of_sagemaker("endpoint-config"),
            ),
            iam.PolicyStatement(
                sid="UpdateEndpoints",
                actions=["sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpoint"],
                # To a configuration that a release has made.
                resources=self._of_sagemaker("endpoint", "endpoint-config"),
            ),
            iam.PolicyStatement(
                # The volumes of instances whose family does not encrypt by itself.
                sid="EncryptVolumes",
                actions=["kms:CreateGrant", "kms:DescribeKey"],
                resources=[self.key("models").key_arn],
                conditions={"StringEquals": {"kms:ViaService": f"sagemaker.{self.region}.{self.url_suffix}"}},
            ),
        ]

    def _machine(self) -> sfn.StateMachine:
        group = logs.LogGroup(
            self,
            "Executions",
            # Step Functions' own prefix keeps its part of the account's log policy from growing.
            log_group_name=f"/aws/vendedlogs/states/{self.names.release_machine}",
            encryption_key=self.key("logs"),
            removal_policy=self.removal_policy,
        )
        resource = group.node.default_child
        assert isinstance(resource, logs.CfnLogGroup)
        resource.retention_in_days = self.environment_config.retention.logs_days
        validators = self.regional_arn("lambda", f"function:{self.names.validator('*', '*')}")
        role = iam.Role(self, "ExecutionRole", assumed_by=self.account_principal("states.amazonaws.com"))
        role.add_to_policy(
            iam.PolicyStatement(
                sid="DoSteps",
                actions=["lambda:InvokeFunction"],
                resources=[
                    self.release.function.function_arn,
                    self.store.function.function_arn,
                    validators,
                ],
            )
        )
        machine = sfn.StateMachine(
            self,
            "Machine",
            state_machine_name=self.names.release_machine,
            comment="Releases a version of a model, or brings back the one that was live",
            definition_body=sfn.DefinitionBody.from_string(
                release_machine.definition(
                    self.partition, self.release.function.function_arn, self.store.function.function_arn
                )
            ),
            role=role,
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=group, level=sfn.LogLevel.ALL, include_execution_data=True),
        )
        acknowledge_wildcards(
            role,
            {
                validators: "Each model has a validator; a definition has no room for a list.",
                "*": "Log deliveries and traces have no resource-level rights for writing.",
            },
        )
        return machine

    def _alarm(self) -> None:
        period = cdk.Duration.minutes(5)

        def ended(name: str) -> cloudwatch.Metric:
            return cloudwatch.Metric(
                namespace="AWS/States",
                metric_name=name,
                dimensions_map={
                    "StateMachineArn": self.regional_arn(
                        "states", f"stateMachine:{self.names.release_machine}"
                    )
                },
                statistic="Sum",
                period=period,
            )

        PlatformAlarm(
            self,
            FAILED,
            cloudwatch.MathExpression(
                expression="FILL(failed, 0) + FILL(aborted, 0) + FILL(late, 0)",
                using_metrics={
                    "failed": metrics.counted(self.names, "ReleasesFailed"),
                    "aborted": ended("ExecutionsAborted"),
                    "late": ended("ExecutionsTimedOut"),
                },
                period=period,
                label="Releases that failed",
            ),
            description="Ticket: a release failed for another reason than its version, or was ended.",
            runbook=FAILED,
            threshold=1,
            notify=True,
        )
