"""Who may call: applications with credentials of their own, and people who log in."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from catalog.section import NAME_PATTERN, Items, Name, Section, each_once, refusal, refuse

# What Cognito has of each; only the last can be raised. Its developer guide, "Quotas in Amazon Cognito".
SCOPES_PER_CLIENT = 50
SCOPES_PER_SERVER = 100
CLIENTS_PER_POOL = 1000

Scope = Annotated[str, Field(pattern=rf"^(invoke|admin|invoke\.{NAME_PATTERN.strip('^$')})$")]
Https = Annotated[str, Field(pattern=r"^https://[^\s/?#@:*]+(:\d{1,5})?(/[^\s#*]*)?$", max_length=1024)]


class _Caller(Section):
    """Whoever takes tokens: what they allow, and for how long."""

    scopes: Annotated[
        Items[Scope],
        Field(
            min_length=1,
            description="What its tokens allow: `invoke` (call the models that share this scope), "
            "`invoke.<model>` (call a model that has a scope of its own), `admin` (read the platform's "
            "state; no inference).",
        ),
    ]
    token_minutes: Annotated[
        int,
        Field(ge=5, le=1440, description="Minutes for which a token is valid (Cognito: 5 minutes to a day)."),
    ] = 60

    @field_validator("scopes")
    @classmethod
    def _within_the_quota(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > SCOPES_PER_CLIENT:
            refuse(
                refusal(
                    len(value),
                    f"is more scopes than Cognito's quota per app client ({SCOPES_PER_CLIENT}, not "
                    "adjustable): split the application into several clients, or let models share the "
                    "scope `invoke`",
                )
            )
        return each_once(value)

    @property
    def models(self) -> dict[int, str]:
        """Position in `scopes` -> the model whose own scope is listed there."""
        named = ((i, scope.partition(".")[2]) for i, scope in enumerate(self.scopes))
        return {i: model for i, model in named if model}


class Client(_Caller):
    """An application that takes tokens with OAuth2 client credentials."""

    name: Annotated[Name, Field(description="Name of the client, unique in the environment.")]
    credentials: Annotated[
        Items[Annotated[int, Field(ge=1, le=9999)]],
        Field(
            min_length=1,
            max_length=2,
            description="Numbers of the credentials that are valid; Secrets Manager holds the last. To "
            "rotate without a failed request: add the next number, deploy, let the application read its "
            "secret again, remove the first number, deploy (docs/security.md).",
        ),
    ] = (1,)

    @field_validator("credentials")
    @classmethod
    def _counted_up(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            refuse(refusal(list(value), "must count up, as [1, 2]: the last is the newest"))
        return value


class Saml(Section):
    """A SAML 2.0 identity provider."""

    metadata_url: Annotated[Https, Field(description="Address of the provider's metadata document (https).")]


class Oidc(Section):
    """An OpenID Connect identity provider."""

    issuer: Annotated[Https, Field(description="The provider's issuer (https).")]
    client_id: Annotated[
        str,
        Field(pattern=r"^[\x21-\x7e]{1,128}$", description="Under which this platform is registered there."),
    ]
    secret: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$",
            description="Name of the secret in Secrets Manager of this account and region whose key "
            "`client_secret` is what the provider issued. Made by hand: it is never in a file here.",
        ),
    ]


class Federation(Section):
    """Where people are known: exactly one of the two."""

    name: Annotated[Name, Field(description="Name of the identity provider, as people see it.")]
    saml: Annotated[Saml | None, Field(description="A SAML 2.0 identity provider.")] = None
    oidc: Annotated[Oidc | None, Field(description="An OpenID Connect identity provider.")] = None

    @model_validator(mode="after")
    def _one_protocol(self) -> "Federation":
        if (self.saml is None) == (self.oidc is None):
            refuse(refusal(self.model_dump(exclude_unset=True), "must have exactly one of saml and oidc"))
        return self


class Login(_Caller):
    """People, who log in with a browser: authorization code with PKCE, and a second factor."""

    callback_urls: Annotated[
        Items[Https],
        Field(
            min_length=1,
            max_length=100,
            description="Where Cognito may send the browser with a code after login: exact https addresses "
            "without fragment or wildcard.",
        ),
    ]
    logout_urls: Annotated[
        Items[Https],
        Field(max_length=100, description="Where Cognito may send the browser after logout."),
    ] = ()
    session_hours: Annotated[
        int,
        Field(ge=1, le=720, description="Hours after which people log in again, however often they come."),
    ] = 12
    federation: Annotated[
        Federation | None,
        Field(
            description="An identity provider that people log in with instead of a password of this "
            "platform; the second factor is then the provider's to ask for."
        ),
    ] = None

    @field_validator("callback_urls", "logout_urls")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(value)
