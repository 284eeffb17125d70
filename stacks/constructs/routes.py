"""The routes of the API: the Open Inference Protocol's, with the same answers whether a model runs on CPU
or GPU.
"""

import json
from collections.abc import Mapping, Sequence

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_

from catalog.model import ModelSpec
from catalog.names import RESOURCE_SERVER
from stacks.base import PlatformStack
from stacks.constructs import sagemaker_integration as sagemaker

INVOKE = [f"{RESOURCE_SERVER}/invoke"]
READ = [f"{RESOURCE_SERVER}/invoke", f"{RESOURCE_SERVER}/admin"]


class Routes:
    """Adds routes to an API; every one of them asks for a token with a scope."""

    def __init__(
        self, stack: PlatformStack, api: apigateway.RestApi, authorizer: apigateway.IAuthorizer
    ) -> None:
        self._stack, self._authorizer = stack, authorizer
        self._v2 = api.root.add_resource("v2")
        self._models = self._v2.add_resource("models")
        # One role calls every model by name, so that no model's stack needs to know the API.
        self._caller = iam.Role(stack, "Caller", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"))

    def add_server(self, catalog: lambda_.IFunction, name: str) -> None:
        """`/v2`, `/v2/health/…` and `/v2/models`: about the platform, not about one model."""
        health = self._v2.add_resource("health")
        metadata = {"name": name, "version": "2", "extensions": []}
        self._get(self._v2, _static(metadata), _static_responses())
        # It answers because API Gateway does: that is what "live" means here.
        self._get(health.add_resource("live"), _static({"live": True}), _static_responses())
        answer = self._function(catalog.function_arn)
        self._get(health.add_resource("ready"), answer)
        self._get(self._models, answer)
        self._allow("AskTheCatalog", "lambda:InvokeFunction", [catalog.function_arn])
        self._catalog = answer

    def add_models(self, models: Sequence[ModelSpec]) -> None:
        """`/v2/models/<name>`, `…/ready` and `…/infer` of every model."""
        functions, endpoints = [], []
        for model in models:
            name = self._stack.names.model(model.name)
            root = self._models.add_resource(model.name)
            if model.target == "cpu":
                functions.append(self._stack.model_arn(model))
                answer = self._function(self._stack.model_arn(model))
                self._get(root, answer)
                self._get(root.add_resource("ready"), answer)
                self._post(root.add_resource("infer"), answer)
            else:
                endpoints.append(self._stack.model_arn(model))
                responses = sagemaker.method_responses()
                metadata = sagemaker.invoke_endpoint(name, self._caller, operation="metadata")
                self._get(root, metadata, responses)
                # The endpoint's state says whether it is ready, and asking for it wakes nothing.
                self._get(root.add_resource("ready"), self._catalog)
                self._post(
                    root.add_resource("infer"),
                    sagemaker.invoke_endpoint(name, self._caller),
                    responses,
                    {"method.request.header.Content-Type": False},
                )
        if functions:
            self._allow("InvokeCpuModels", "lambda:InvokeFunction", functions)
        if endpoints:
            self._allow("InvokeGpuModels", "sagemaker:InvokeEndpoint", endpoints)

    def _allow(self, sid: str, action: str, resources: list[str]) -> None:
        self._caller.add_to_policy(iam.PolicyStatement(sid=sid, actions=[action], resources=resources))

    def _function(self, function_arn: str) -> apigateway.AwsIntegration:
        """The proxy integration of a function that need not be in this stack."""
        return apigateway.AwsIntegration(
            proxy=True,
            service="lambda",
            path=f"2015-03-31/functions/{function_arn}/invocations",
            options=apigateway.IntegrationOptions(credentials_role=self._caller),
        )

    def _get(
        self,
        resource: apigateway.Resource,
        integration: apigateway.Integration,
        responses: Sequence[apigateway.MethodResponse] = (),
    ) -> None:
        self._method(resource, "GET", READ, integration, responses, {})

    def _post(
        self,
        resource: apigateway.Resource,
        integration: apigateway.Integration,
        responses: Sequence[apigateway.MethodResponse] = (),
        parameters: dict[str, bool] | None = None,
    ) -> None:
        self._method(resource, "POST", INVOKE, integration, responses, parameters or {})

    def _method(
        self,
        resource: apigateway.Resource,
        method: str,
        scopes: list[str],
        integration: apigateway.Integration,
        responses: Sequence[apigateway.MethodResponse],
        parameters: dict[str, bool],
    ) -> None:
        resource.add_method(
            method,
            integration,
            authorizer=self._authorizer,
            authorization_type=apigateway.AuthorizationType.COGNITO,
            authorization_scopes=scopes,
            request_parameters=parameters,
            method_responses=list(responses) or None,
        )


def _static(document: Mapping[str, object]) -> apigateway.MockIntegration:
    """An answer that is known when the API is deployed: it costs nothing and calls nobody."""
    return apigateway.MockIntegration(
        # A media type without a template is 415 then, not a failed integration.
        passthrough_behavior=apigateway.PassthroughBehavior.NEVER,
        request_templates={"application/json": '{"statusCode": 200}'},
        integration_responses=[
            apigateway.IntegrationResponse(
                status_code="200",
                response_templates={"application/json": json.dumps(document, separators=(",", ":"))},
                response_parameters={f"method.response.header.{sagemaker.REQUEST_ID}": "context.requestId"},
            )
        ],
    )


def _static_responses() -> list[apigateway.MethodResponse]:
    return [
        apigateway.MethodResponse(
            status_code="200", response_parameters={f"method.response.header.{sagemaker.REQUEST_ID}": True}
        )
    ]
