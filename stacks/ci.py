"""What GitHub's workflows may do here: two roles without a stored key, one to deploy, one to look."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Ci, Environment
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge_wildcards

ISSUER = "token.actions.githubusercontent.com"

AUDIENCE = "sts.amazonaws.com"

SESSION = cdk.Duration.hours(4)
"""Longer than any deployment: an endpoint is replaced in up to an hour."""

BOOTSTRAP_ROLES = ("deploy", "file-publishing", "image-publishing", "lookup")


class CiStack(PlatformStack):
    """The first deployment of this stack is a person's; from then on it is deployed like the others."""

    def __init__(self, scope: Construct, environment: Environment, ci: Ci) -> None:
        super().__init__(scope, "ci", environment, description="GitHub's access to the inference platform")
        if ci.oidc_provider:
            provider = iam.CfnOIDCProvider(self, "GitHub", url=f"https://{ISSUER}", client_id_list=[AUDIENCE])
            # Other repositories' roles trust it too.
            provider.apply_removal_policy(cdk.RemovalPolicy.RETAIN)

        # The job's GitHub environment is in the token, and with it its approvals and branches.
        deploy = self._role("Deploy", f"repo:{ci.repository}:environment:{environment.name}", SESSION)
        diff = self._role("Diff", f"repo:{ci.repository}:pull_request", cdk.Duration.hours(1))
        for role in (deploy, diff):
            self._read_stacks(role)
        self._deploy(deploy)
        self._prune(deploy)
        self._see_models(deploy)
        listing = {
            self._stacks: "A stack's ARN ends in an id that CloudFormation makes; a new model, a new stack.",
            "*": "Listing stacks is a right on all of them or none.",
        }
        acknowledge_wildcards(diff, listing)
        acknowledge_wildcards(
            deploy,
            listing
            | {
                self._functions: "A new model is a new function, with the same prefix.",
                self._endpoints: "A new model is a new endpoint, with the same prefix.",
                self._components: "A new model may be a new component, with the same prefix.",
                self._parameters: "A new model is a new parameter, on the same path.",
            },
        )

    @property
    def _stacks(self) -> str:
        return self.regional_arn("cloudformation", f"stack/{self.names.prefix}-*/*")

    @property
    def _functions(self) -> str:
        return self.regional_arn("lambda", f"function:{self.names.prefix}-*")

    @property
    def _endpoints(self) -> str:
        return self.regional_arn("sagemaker", f"endpoint/{self.names.prefix}-*")

    @property
    def _components(self) -> str:
        return self.regional_arn("sagemaker", f"inference-component/{self.names.prefix}-*")

    @property
    def _parameters(self) -> str:
        return self.regional_arn("ssm", f"parameter{self.names.parameter('*')}")

    def _role(self, name: str, subject: str, session: cdk.Duration) -> iam.Role:
        provider = f"arn:{self.partition}:iam::{self.account}:oidc-provider/{ISSUER}"
        return iam.Role(
            self,
            name,
            role_name=self.names.resource(f"ci-{name.lower()}"),
            description=f"GitHub workflows of {subject}",
            max_session_duration=session,
            assumed_by=iam.WebIdentityPrincipal(
                provider, {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": subject}}
            ),
        )

    def _read_stacks(self, role: iam.Role) -> None:
        """For `inferctl diff`: what is deployed now. A template holds no secret."""
        role.add_to_policy(
            iam.PolicyStatement(sid="ListStacks", actions=["cloudformation:DescribeStacks"], resources=["*"])
        )
        role.add_to_policy(
            iam.PolicyStatement(
                sid="ReadTemplates", actions=["cloudformation:GetTemplate"], resources=[self._stacks]
            )
        )

    def _deploy(self, role: iam.Role) -> None:
        """For `cdk deploy`, which acts as the roles that the bootstrap made, and as nothing else."""
        role.add_to_policy(
            iam.PolicyStatement(
                sid="ActAsBootstrapRoles",
                actions=["sts:AssumeRole"],
                resources=[
                    f"arn:{self.partition}:iam::{self.account}:role/"
                    f"cdk-{cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER}-{purpose}-role-{self.account}-{self.region}"
                    for purpose in BOOTSTRAP_ROLES
                ],
            )
        )

    def _prune(self, role: iam.Role) -> None:
        """For `inferctl prune`; not the right to lift the protection of a stack, which is a person's."""
        role.add_to_policy(
            iam.PolicyStatement(
                sid="DeleteOrphans", actions=["cloudformation:DeleteStack"], resources=[self._stacks]
            )
        )

    def _see_models(self, role: iam.Role) -> None:
        """For `inferctl status`."""
        for sid, action, resource in (
            ("SeeFunctions", "lambda:GetFunctionConfiguration", self._functions),
            ("SeeEndpoints", "sagemaker:DescribeEndpoint", self._endpoints),
            ("SeeComponents", "sagemaker:DescribeInferenceComponent", self._components),
            ("SeeVersions", "ssm:GetParameters", self._parameters),
        ):
            role.add_to_policy(iam.PolicyStatement(sid=sid, actions=[action], resources=[resource]))
