"""The HTTPS API: a regional REST API, authorized by Cognito, that routes every model to its target."""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.function import PlatformFunction
from stacks.constructs.problems import GATEWAY_RESPONSES, MEDIA_TYPE
from stacks.constructs.routes import Routes

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


class ApiStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "api", environment, description="HTTPS API of the inference platform")
        catalog = self._catalog(models)
        api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=self.names.prefix,
            description="Open Inference Protocol v2",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=False,
            deploy_options=self._stage(),
        )
        acknowledge(
            api,
            {
                "APIG2": "Requests are tensors: the runtime validates them, the same on both targets.",
                "APIG3": "The web ACL is not part of the platform yet; see docs/decisions.",
                "APIGWAssociatedWithWAF": "The web ACL is not part of the platform yet; see docs/decisions.",
                "APIG6": "Execution logs would hold payloads; the access log holds what operations need.",
                "APIGWExecutionLoggingEnabled": "Execution logs would hold payloads; the access log holds "
                "what operations need.",
                "APIGWCacheEnabledAndEncrypted": "No answer is kept: one client's must never reach another.",
                "APIGWSSLEnabled": "Client certificates are for backends over HTTP; these are AWS's own, "
                "called with a role's signature.",
            },
        )
        for response_type, problem in GATEWAY_RESPONSES.items():
            api.add_gateway_response(
                response_type,
                type=apigateway.ResponseType.of(response_type),
                status_code=str(problem.status),
                response_headers={"Content-Type": f"'{MEDIA_TYPE}'", "X-Request-Id": "context.requestId"},
                templates={"application/json": problem.document()},
            )
        routes = Routes(self, api, self._authorizer())
        routes.add_server(catalog.function, self.names.prefix)
        routes.add_models(models)
        if environment.api.log_role:
            self._let_api_gateway_log(api)
        # Built from the region, not taken from the stage: clients get one form of the address everywhere.
        self.share(
            "api/url",
            f"https://{api.rest_api_id}.execute-api.{self.region}.{self.url_suffix}/{environment.name}",
        )

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

    def _authorizer(self) -> apigateway.CognitoUserPoolsAuthorizer:
        pool = cognito.UserPool.from_user_pool_id(self, "Pool", self.shared("identity/user-pool-id"))
        return apigateway.CognitoUserPoolsAuthorizer(self, "Authorizer", cognito_user_pools=[pool])

    def _catalog(self, models: Sequence[ModelSpec]) -> PlatformFunction:
        """The function that knows what is live and ready; outside the network, for it touches no payload."""
        names = {
            target: [model.name for model in models if model.target == target] for target in ("cpu", "gpu")
        }
        functions = [self.model_arn(model) for model in models if model.target == "cpu"]
        endpoints = [self.model_arn(model) for model in models if model.target == "gpu"]
        statements = [
            iam.PolicyStatement(
                sid="ReadLiveVersions",
                actions=["ssm:GetParameters"],
                resources=[
                    self.regional_arn("ssm", f"parameter{self.names.live_parameter(model.name)}")
                    for model in models
                ],
            )
        ]
        if functions:
            statements.append(
                iam.PolicyStatement(
                    sid="SeeFunctions", actions=["lambda:GetFunctionConfiguration"], resources=functions
                )
            )
        if endpoints:
            statements.append(
                iam.PolicyStatement(
                    sid="SeeEndpoints", actions=["sagemaker:DescribeEndpoint"], resources=endpoints
                )
            )
        return PlatformFunction(
            self,
            "Catalog",
            source="catalog",
            description="Lists the models, and says whether they are ready",
            environment={
                "RESOURCE_PREFIX": self.names.prefix,
                "LIVE_PATH": self.names.parameter("models"),
                "MODELS": json.dumps(names, separators=(",", ":")),
            },
            memory_mb=512,
            timeout_seconds=10,
            log_group_name=self.names.log_group("catalog"),
            statements=statements,
        )

    def _let_api_gateway_log(self, api: apigateway.RestApi) -> None:
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
