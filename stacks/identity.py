"""Who may call: a user pool for machine clients, OAuth2 client credentials, two scopes."""

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from catalog.environment import Environment
from catalog.names import RESOURCE_SERVER
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge

SCOPES = {
    "invoke": "Call models and read their metadata",
    "admin": "Read the platform's state; no inference",
}


class IdentityStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "identity", environment, description="Callers of the inference platform")
        pool = cognito.UserPool(
            self,
            "Pool",
            user_pool_name=self.names.prefix,
            self_sign_up_enabled=False,
            feature_plan=cognito.FeaturePlan.ESSENTIALS,
            mfa=cognito.Mfa.REQUIRED,
            mfa_second_factor=cognito.MfaSecondFactor(sms=False, otp=True),
            password_policy=cognito.PasswordPolicy(
                min_length=16,
                require_digits=True,
                require_lowercase=True,
                require_symbols=True,
                require_uppercase=True,
            ),
            removal_policy=self.removal_policy,
            deletion_protection=environment.retention.keep_data,
        )
        acknowledge(
            pool, {"COG8": "The Plus plan's threat protection watches human logins; this pool has none."}
        )
        scopes = {
            name: cognito.ResourceServerScope(scope_name=name, scope_description=what)
            for name, what in SCOPES.items()
        }
        server = pool.add_resource_server(
            "Inference", identifier=RESOURCE_SERVER, scopes=list(scopes.values())
        )
        # The prefix is global across all accounts, hence the account in it.
        domain = pool.add_domain(
            "Domain",
            cognito_domain=cognito.CognitoDomainOptions(
                domain_prefix=f"{self.names.prefix}-{self.account}-{self.region}"
            ),
        )
        for client in environment.clients:
            app_client = pool.add_client(
                client.name,
                user_pool_client_name=client.name,
                generate_secret=True,
                auth_flows=cognito.AuthFlow(),
                access_token_validity=cdk.Duration.minutes(client.token_minutes),
                enable_token_revocation=True,
                o_auth=cognito.OAuthSettings(
                    flows=cognito.OAuthFlows(client_credentials=True),
                    scopes=[
                        cognito.OAuthScope.resource_server(server, scopes[name]) for name in client.scopes
                    ],
                ),
            )
            self.share(f"identity/clients/{client.name}/id", app_client.user_pool_client_id)
        self.share("identity/user-pool-id", pool.user_pool_id)
        self.share("identity/token-url", f"{domain.base_url()}/oauth2/token")
