"""The HTTPS API: a regional REST API, authorized by Cognito, that routes every model to its target."""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from catalog.capacity import exceeded
from catalog.environment import Environment
from catalog.errors import CatalogError
from catalog.model import ModelSpec
from catalog.names import FROM_ZERO
from catalog.quotas import API_RESOURCES
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge, acknowledge_wildcards
from stacks.constructs.front_door import FrontDoor
from stacks.constructs.function import PlatformFunction
from stacks.constructs.routes import Backends, document, resources

ACCESS_LOG_FORMAT = {
    "request_id": "$context.requestId",
    "time": "$context.requestTime",
    "client_id": "$context.authorizer.claims.client_id",
    "source_ip": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "route": "$context.resourcePath",
    "status": "$context.status",
    "latency_ms": "$context.responseLatency",
    "integration_status": "$context.integration.status",
    "integration_latency_ms": "$context.integration.latency",
    "response_bytes": "$context.responseLength",
    "error": "$context.error.responseType",
}
"""One JSON object per request: who called which model, how it went. No payload, no token."""

EVERY_MODEL = (
    "Every model of the environment, whose names alone begin like this: a list would be outgrown by "
    "the catalog (an inline policy has 10,240 characters) and be behind it whenever a model moves."
)
"""Why a policy has a wildcard for the models' names."""


class ApiStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(
            scope,
            "api",
            environment,
            description="HTTPS API of the inference platform",
            # The one template that grows with the catalog by kilobytes.
            compact=True,
        )
        catalog = self._catalog(models)
        caller = self._caller(catalog)
        body = document(models, self.names, self._backends(models, catalog, caller))
        self._check_quota(resources(body["paths"]))
        door = FrontDoor(self)
        api = apigateway.SpecRestApi(
            self,
            "Api",
            api_definition=apigateway.ApiDefinition.from_inline(body),
            rest_api_name=self.names.prefix,
            # A warning means that something was left out, such as an authorizer.
            fail_on_warnings=True,
            cloud_watch_role=False,
            deploy_options=self._stage(),
            **door.api_options,
        )
        # No route is served before its role may call what is behind it.
        api.node.add_dependency(caller)
        acknowledge(
            api,
            {
                "APIG2": "Requests are tensors: the runtime validates them, the same on both targets.",
                "APIG6": "Execution logs would hold payloads; the access log holds what operations need.",
                "APIGWExecutionLoggingEnabled": "Execution logs would hold payloads; the access log holds "
                "what operations need.",
                "APIGWSSLEnabled": "Client certificates are for backends over HTTP; these are AWS's own, "
                "called with a role's signature.",
            },
        )
        acknowledge(
            api.deployment_stage,
            {"APIGWCacheEnabledAndEncrypted": "No answer is kept: one client's must never reach another."},
        )
        if not environment.firewall.enabled:
            why = f"config/{environment.name}.yaml leaves the firewall out."
            acknowledge(api, {"APIG3": why, "APIGWAssociatedWithWAF": why})
        if environment.api.log_role:
            self._let_api_gateway_log(api)
        self.share("api/url", door.open(api))

    def _check_quota(self, needed: int) -> None:
        """Raises CatalogError for more API resources than the account may have."""
        granted = self.environment_config.quotas.api_resources
        if needed > granted:
            problem = exceeded(
                self.environment_config,
                "api_resources",
                f"the catalog's routes are {needed} API resources of {granted}",
                f"`Resources/Routes per REST/WebSocket API`, {API_RESOURCES} of API Gateway",
                "give some models an environment of their own",
            )
            raise CatalogError([problem])

    def _backends(self, models: Sequence[ModelSpec], catalog: PlatformFunction, caller: iam.Role) -> Backends:
        pool = f"userpool/{self.shared('identity/user-pool-id')}"
        return Backends(
            service=f"arn:{self.partition}:apigateway:{self.region}",
            user_pool=self.regional_arn("cognito-idp", pool),
            caller=caller.role_arn,
            catalog=catalog.function.function_arn,
            functions={
                model.name: self.model_arn("cpu", model.name) for model in models if model.target == "cpu"
            },
        )

    def _caller(self, catalog: PlatformFunction) -> iam.Role:
        """The one role in whose name API Gateway calls every model, so that no model's stack knows the API.

        What it may do does not depend on the catalog: while a model moves or goes, the routes of before and
        after both work, and no number of models outgrows IAM's 10,240 characters of inline policy.
        """
        role = iam.Role(self, "Caller", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"))
        functions, endpoints = self.model_arn("cpu", "*"), self.model_arn("gpu", "*")
        for sid, action, called in (
            ("AskTheCatalog", "lambda:InvokeFunction", [catalog.function.function_arn]),
            ("InvokeCpuModels", "lambda:InvokeFunction", [functions]),
            # Calling a component takes the right on both.
            ("InvokeGpuModels", "sagemaker:InvokeEndpoint", [endpoints, self._components]),
        ):
            role.add_to_policy(iam.PolicyStatement(sid=sid, actions=[action], resources=called))
        acknowledge_wildcards(role, dict.fromkeys((functions, endpoints, self._components), EVERY_MODEL))
        return role

    @property
    def _components(self) -> str:
        """The ARN of the inference component of every model that sleeps."""
        return self.regional_arn("sagemaker", f"inference-component/{self.names.model('*')}")

    def _stage(self) -> apigateway.StageOptions:
        settings = self.environment_config.api
        access_logs = logs.LogGroup.from_log_group_name(
            self, "AccessLogs", self.names.log_group("api-access")
        )
        return apigateway.StageOptions(
            stage_name=self.environment_config.name,
            throttling_rate_limit=settings.throttle_rate,
            throttling_burst_limit=settings.throttle_burst,
            metrics_enabled=True,
            # Execution logs would hold payloads; the access log holds what operations need.
            logging_level=apigateway.MethodLoggingLevel.OFF,
            data_trace_enabled=False,
            tracing_enabled=True,
            access_log_destination=apigateway.LogGroupLogDestination(access_logs),
            access_log_format=apigateway.AccessLogFormat.custom(json.dumps(ACCESS_LOG_FORMAT)),
        )

    def _catalog(self, models: Sequence[ModelSpec]) -> PlatformFunction:
        """The function that knows what is live and ready; outside the network, for it touches no payload."""
        names: dict[str, list[str]] = {"cpu": [], "gpu": []}
        for model in models:
            names.setdefault(model.home, []).append(model.name)
        allowed = {
            "ReadLiveVersions": (
                "ssm:GetParameters",
                self.regional_arn("ssm", f"parameter{self.names.live_parameter('*')}"),
            ),
            "SeeFunctions": ("lambda:GetFunctionConfiguration", self.model_arn("cpu", "*")),
            "SeeEndpoints": ("sagemaker:DescribeEndpoint", self.model_arn("gpu", "*")),
        }
        wildcards = {resource: EVERY_MODEL for _, resource in allowed.values()}
        if FROM_ZERO in names:
            manifests = f"{self.bucket_arn('models')}/*/manifest.json"
            wildcards |= {
                self._components: EVERY_MODEL,
                manifests: "An artifact is a folder named by its hash.",
            }
            allowed |= {
                "SeeComponents": ("sagemaker:DescribeInferenceComponent", self._components),
                "ReadManifests": ("s3:GetObject", manifests),
                "DecryptManifests": ("kms:Decrypt", self.key("models").key_arn),
            }
        return PlatformFunction(
            self,
            "Catalog",
            source="catalog",
            description="Lists the models, and says whether they are ready",
            environment={
                "RESOURCE_PREFIX": self.names.prefix,
                "LIVE_PATH": self.names.parameter("models"),
                "MODELS": json.dumps(names, separators=(",", ":")),
                "ARTIFACTS_BUCKET": self.bucket_name("models"),
            },
            memory_mb=512,
            timeout_seconds=10,
            log_group_name=self.names.log_group("catalog"),
            statements=[
                iam.PolicyStatement(sid=sid, actions=[action], resources=[resource])
                for sid, (action, resource) in allowed.items()
            ],
            wildcards=wildcards,
        )

    def _let_api_gateway_log(self, api: apigateway.SpecRestApi) -> None:
        """The account's one role for API Gateway's logs; it outlives this stack, because other APIs use it
        too.
        """
        role = iam.Role(self, "LogRole", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"))
        role.add_managed_policy(
            iam.ManagedPolicy.from_aws_managed_policy_name(
                "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
            )
        )
        acknowledge(
            role,
            {
                "IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
                "AmazonAPIGatewayPushToCloudWatchLogs]": "API Gateway asks for exactly this policy."
            },
        )
        account = apigateway.CfnAccount(self, "Account", cloud_watch_role_arn=role.role_arn)
        role.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        account.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        api.deployment_stage.node.add_dependency(account)
