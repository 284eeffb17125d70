"""Finding a deployed environment: which AWS, where its API is, and how to get a token for it.

The embedded AWS is the environment `local`. It answers for all AWS services at one loopback address, so the
API's and the token endpoint's public names are replaced by that address here, and nowhere else.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

import local_aws
from catalog import Environment, load_environment
from catalog.names import INVOKE, RESOURCE_SERVER, Names, own_scope
from inferctl.client import Client, ClientCredentials, Verify
from inferctl.errors import CredentialsError, InferctlError, UnreachableError

ROOT = Path(__file__).resolve().parent.parent

_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
_REFUSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)


@dataclass(frozen=True)
class Aws:
    """One account and region, real or embedded."""

    session: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """A boto3 client."""
        return self.session.client(service, **self.options)


@dataclass(frozen=True)
class Deployed:
    """An environment that is deployed: where it is, and its clients' credentials."""

    environment: Environment
    aws: Aws
    api_url: str
    token_url: str
    user_pool_id: str
    token_headers: Mapping[str, str] = field(default_factory=dict)
    verify: Verify = True

    def tokens(
        self, client: str | None = None, *, model: str | None = None, scopes: tuple[str, ...] = ()
    ) -> ClientCredentials:
        """Tokens for an app client; by default the first in the configuration that may invoke (`model`).

        Args:
            scopes: those to ask for, as the configuration writes them; none asks for all that the client has.

        Raises InferctlError for a client that the environment does not have.
        """
        name = client or self._invoker(model)
        known = [each.name for each in self.environment.clients]
        if name not in known:
            raise InferctlError(
                f"There is no client {name!r} in config/{self.environment.name}.yaml; it has "
                f"{', '.join(known) or 'none'}."
            )
        secret = Names(self.environment.name).client_secret(name)
        with aws_errors():
            held = self.aws.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
        credentials = json.loads(held)
        return ClientCredentials(
            self.token_url,
            credentials["client_id"],
            credentials["client_secret"],
            scopes=tuple(f"{RESOURCE_SERVER}/{scope}" for scope in scopes),
            headers=self.token_headers,
            verify=self.verify,
        )

    def client(self, name: str | None = None, *, model: str | None = None) -> Client:
        """An HTTP client of the API, as the app client `name` or one that may invoke (`model`)."""
        return Client(self.api_url, self.tokens(name, model=model), self.verify)

    def _invoker(self, model: str | None) -> str:
        # Where a client lists the model's own scope the model has one, which `invoke` does not replace.
        for wanted in ([own_scope(model)] if model else []) + [INVOKE]:
            for client in self.environment.clients:
                if wanted in client.scopes:
                    return client.name
        file = f"config/{self.environment.name}.yaml"
        raise InferctlError(f"No client in {file} has the scope {INVOKE!r}: add one, or pass --client.")


def connect(name: str, home: Path | None = None) -> Aws:
    """The AWS that holds an environment: for `local` the running embedded AWS, else what boto3 finds.

    Raises UnreachableError when the embedded AWS does not run, CatalogError for an unknown environment.
    """
    environment = load_environment(ROOT / "config", name)
    if not environment.is_local:
        with aws_errors():
            return Aws(boto3.Session(region_name=environment.region))
    return embedded(running(home))


def running(home: Path | None = None) -> local_aws.State:
    """The embedded AWS that answers now. Raises UnreachableError when there is none."""
    state = local_aws.status(home=home)
    if state is None:
        raise UnreachableError("The embedded AWS is not running: start it with `inferctl up`.")
    return state


def embedded(state: local_aws.State) -> Aws:
    """The embedded AWS as boto3 clients, untouched by the user's own AWS profile and proxies."""
    core = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    session = boto3.Session(
        botocore_session=core,
        aws_access_key_id=state.access_key_id,
        aws_secret_access_key=state.secret_access_key,
        region_name=state.region,
    )
    # It answers stack operations when they are done, on a machine that may have other things to do.
    config = Config(proxies={}, connect_timeout=5, read_timeout=180, retries={"max_attempts": 2})
    return Aws(session, {"endpoint_url": state.endpoint, "verify": state.ca_bundle, "config": config})


def find(name: str, home: Path | None = None) -> Deployed:
    """A deployed environment, from the SSM parameters that its stacks wrote.

    Raises UnreachableError when it is not deployed, CredentialsError when AWS refuses, CatalogError for an
    unknown environment.
    """
    environment = load_environment(ROOT / "config", name)
    aws = connect(name, home)
    names = Names(name)
    api, pool, token = (
        names.parameter(p) for p in ("api/url", "identity/user-pool-id", "identity/token-url")
    )
    with aws_errors():
        found = _parameters(aws, [api, pool, token])
    deployed = Deployed(environment, aws, found[api], found[token], found[pool])
    return _on_loopback(deployed, running(home)) if environment.is_local else deployed


def _on_loopback(deployed: Deployed, state: local_aws.State) -> Deployed:
    api, token = urlsplit(deployed.api_url), urlsplit(deployed.token_url)
    api_id = api.netloc.partition(".")[0]
    return Deployed(
        deployed.environment,
        deployed.aws,
        f"{state.endpoint}/_aws/execute-api/{api_id}{api.path}",
        f"{state.endpoint}{token.path}",
        deployed.user_pool_id,
        {"Host": token.netloc},
        ssl.create_default_context(cafile=state.ca_bundle),
    )


def _parameters(aws: Aws, names: list[str]) -> dict[str, str]:
    answer = aws.client("ssm").get_parameters(Names=names)
    if answer["InvalidParameters"]:
        missing = ", ".join(answer["InvalidParameters"])
        raise UnreachableError(f"The environment is not deployed here: SSM has no parameter {missing}.")
    return {each["Name"]: each["Value"] for each in answer["Parameters"]}


def is_refusal(error: ClientError) -> bool:
    """Whether AWS says that the caller may not, rather than that the call cannot be."""
    return error.response.get("Error", {}).get("Code", "") in _REFUSED


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turns boto3's errors into ours: no or refused credentials, nothing reachable, or a failed call."""
    try:
        yield
    except _CREDENTIALS as error:
        raise CredentialsError(f"No AWS credentials: {error}. Sign in, or set AWS_PROFILE.") from error
    except ClientError as error:
        kind = CredentialsError if is_refusal(error) else InferctlError
        raise kind(f"AWS refused: {error}.") from error
    except (EndpointConnectionError, NoRegionError) as error:
        raise UnreachableError(f"AWS cannot be reached: {error}.") from error
    except BotoCoreError as error:
        raise UnreachableError(f"AWS did not answer: {error}.") from error
