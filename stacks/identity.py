"""Who may call: applications with OAuth2 client credentials and, where configured, people who log in."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from catalog import scopes
from catalog.callers import Client, Federation, Login
from catalog.environment import Environment
from catalog.model import ModelSpec
from catalog.names import PLATFORM_SCOPES, RESOURCE_SERVER, own_scope
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge


class IdentityStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "identity", environment, description="Callers of the inference platform")
        login = environment.login
        self._pool = self._user_pool(login)
        self._scopes = self._resource_server(models)
        domain = self._pool.add_domain(
            "Domain",
            # The prefix is global across all accounts, hence the account in it.
            cognito_domain=cognito.CognitoDomainOptions(
                domain_prefix=f"{self.names.prefix}-{self.account}-{self.region}"
            ),
            managed_login_version=cognito.ManagedLoginVersion.NEWER_MANAGED_LOGIN if login else None,
        )
        self._token_url = f"{domain.base_url()}/oauth2/token"
        for client in environment.clients:
            self._application(client)
        if login is not None:
            self._people(login)
        self.share("identity/user-pool-id", self._pool.user_pool_id)
        self.share("identity/token-url", self._token_url)
        for model in scopes.uncalled(environment, models):
            cdk.Annotations.of(self).add_warning_v2(
                "inference:uncalled-model",
                f"Nobody may call the model {model}: list {own_scope(model)!r} under the scopes of a client "
                f"in config/{environment.name}.yaml.",
            )

    def _user_pool(self, login: Login | None) -> cognito.UserPool:
        pool = cognito.UserPool(
            self,
            "Pool",
            user_pool_name=self.names.prefix,
            self_sign_up_enabled=False,
            feature_plan=cognito.FeaturePlan.PLUS if login else cognito.FeaturePlan.ESSENTIALS,
            standard_threat_protection_mode=(
                cognito.StandardThreatProtectionMode.FULL_FUNCTION if login else None
            ),
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
            deletion_protection=self.environment_config.retention.keep_data,
        )
        if login is None:
            acknowledge(
                pool,
                {"COG8": "The Plus plan's threat protection watches human logins; this pool has none."},
            )
        return pool

    def _resource_server(self, models: Sequence[ModelSpec]) -> dict[str, cognito.OAuthScope]:
        """The scopes of the platform and of models that have their own -> what an app client is given."""
        described = PLATFORM_SCOPES | {
            own_scope(model): f"Call the model {model} and read its metadata"
            for model in scopes.models_with_own_scope(models)
        }
        known = {
            name: cognito.ResourceServerScope(scope_name=name, scope_description=what)
            for name, what in described.items()
        }
        server = self._pool.add_resource_server(
            "Inference", identifier=RESOURCE_SERVER, scopes=list(known.values())
        )
        return {name: cognito.OAuthScope.resource_server(server, one) for name, one in known.items()}

    def _application(self, client: Client) -> None:
        """One app client per valid credential; the newest is what Secrets Manager holds."""
        # A credential that is rotated away is replaced by a new app client: Cognito's second secret of one
        # client cannot be read by CloudFormation (docs/decisions/0014-credentials-in-secrets-manager.md).
        apps = [
            self._pool.add_client(
                client.name if number == 1 else f"{client.name}.{number}",
                user_pool_client_name=client.name,
                generate_secret=True,
                auth_flows=cognito.AuthFlow(),
                access_token_validity=cdk.Duration.minutes(client.token_minutes),
                enable_token_revocation=True,
                o_auth=cognito.OAuthSettings(
                    flows=cognito.OAuthFlows(client_credentials=True),
                    scopes=[self._scopes[name] for name in client.scopes],
                ),
            )
            for number in client.credentials
        ]
        newest = apps[-1].node.default_child
        assert isinstance(newest, cognito.CfnUserPoolClient)
        secret = secretsmanager.Secret(
            self,
            f"Secret-{client.name}",
            secret_name=self.names.client_secret(client.name),
            description=f"With which {client.name} takes tokens",
            encryption_key=self.key("secrets"),
            secret_object_value={
                # Tokens, which CloudFormation resolves: no value is in the template.
                "client_id": cdk.SecretValue.unsafe_plain_text(newest.ref),
                "client_secret": cdk.SecretValue.resource_attribute(newest.attr_client_secret),
                "token_url": cdk.SecretValue.unsafe_plain_text(self._token_url),
                "scope": cdk.SecretValue.unsafe_plain_text(
                    " ".join(f"{RESOURCE_SERVER}/{name}" for name in client.scopes)
                ),
            },
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        rotated = "Rotated by `credentials` in the configuration, without a failed request: docs/security.md."
        acknowledge(secret, {"SMG4": rotated, "SecretsManagerRotationEnabled": rotated})

    def _people(self, login: Login) -> None:
        """An app client without a secret, for browsers: authorization code, PKCE, a second factor."""
        providers = (
            [self._identity_provider(login.federation)]
            if login.federation
            else [cognito.UserPoolClientIdentityProvider.COGNITO]
        )
        app = self._pool.add_client(
            "Login",
            user_pool_client_name="login",
            generate_secret=False,
            auth_flows=cognito.AuthFlow(),
            prevent_user_existence_errors=True,
            supported_identity_providers=providers,
            access_token_validity=cdk.Duration.minutes(login.token_minutes),
            id_token_validity=cdk.Duration.minutes(login.token_minutes),
            refresh_token_validity=cdk.Duration.hours(login.session_hours),
            enable_token_revocation=True,
            o_auth=cognito.OAuthSettings(
                flows=cognito.OAuthFlows(authorization_code_grant=True),
                callback_urls=list(login.callback_urls),
                logout_urls=list(login.logout_urls),
                scopes=[cognito.OAuthScope.OPENID, *(self._scopes[name] for name in login.scopes)],
            ),
        )
        app.node.add_dependency(*self._pool.identity_providers)
        cognito.CfnManagedLoginBranding(
            self,
            "LoginPages",
            user_pool_id=self._pool.user_pool_id,
            client_id=app.user_pool_client_id,
            use_cognito_provided_values=True,
        )
        self.share("identity/login/id", app.user_pool_client_id)

    def _identity_provider(self, federation: Federation) -> cognito.UserPoolClientIdentityProvider:
        if federation.saml is not None:
            cognito.UserPoolIdentityProviderSaml(
                self,
                "Federation",
                user_pool=self._pool,
                name=federation.name,
                metadata=cognito.UserPoolIdentityProviderSamlMetadata.url(federation.saml.metadata_url),
                idp_signout=True,
            )
        elif federation.oidc is not None:
            oidc = federation.oidc
            cognito.UserPoolIdentityProviderOidc(
                self,
                "Federation",
                user_pool=self._pool,
                name=federation.name,
                issuer_url=oidc.issuer,
                client_id=oidc.client_id,
                # A dynamic reference: CloudFormation reads the secret when it deploys.
                client_secret=cdk.SecretValue.secrets_manager(
                    oidc.secret, json_field="client_secret"
                ).unsafe_unwrap(),
                scopes=["openid"],
            )
        return cognito.UserPoolClientIdentityProvider.custom(federation.name)
