"""Credentials, their rotation, and models with a scope of their own, on the deployed platform."""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import httpx
import pytest

from app import ROOT
from catalog.environment import Environment
from catalog.loader import load_platform
from inferctl.client import ClientCredentials
from inferctl.errors import CredentialsError
from stacks.api import ApiStack
from stacks.identity import IdentityStack
from tests.integration.platform.conftest import Platform

BODIES = {
    "text-embedding": b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["x"]}]}',
    "file-type": b'{"inputs":[{"name":"content","datatype":"BYTES","shape":[1],"data":["x"]}]}',
}


class Variation:
    """The callers and the API of `local`, deployed as another configuration describes them."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._cloudformation = platform.aws("cloudformation")
        self._folder = folder
        self._before: dict[str, str] = {}

    def deploy(
        self,
        clients: Sequence[Mapping[str, Any]] = (),
        *,
        own_scopes: Sequence[str] = (),
        api: Mapping[str, Any] | None = None,
    ) -> None:
        """Deploy `local` with clients beside its own, models with a scope of their own, another address."""
        found = load_platform(ROOT, "local")
        document = found.environment.model_dump(mode="json", exclude_unset=True)
        document["clients"] += clients
        document["api"] |= api or {}
        if api:
            document["probe"] = None  # nothing outside reaches a private address, so both are refused
        environment = Environment.model_validate(document)
        models = [
            type(spec).model_validate(
                spec.model_dump(mode="json") | {"access": {"scope": "own"}}
                if spec.name in own_scopes
                else spec.model_dump(mode="json")
            )
            for spec in found.models
        ]
        context = json.loads((ROOT / "cdk.json").read_text())["context"]
        app = cdk.App(outdir=str(self._folder), context=context)
        stacks: list[cdk.Stack] = [IdentityStack(app, environment, models)] if clients else []
        if own_scopes or api:
            stacks.append(ApiStack(app, environment, models))
        app.synth()
        for stack in stacks:
            self._update(stack.stack_name, (self._folder / stack.template_file).read_text())

    def undo(self) -> None:
        """Deploy what was there before; the API first, for its routes name scopes."""
        for stack, template in reversed(list(self._before.items())):
            self._update(stack, template)

    def _update(self, stack: str, template: str) -> None:
        if stack not in self._before:
            found = self._cloudformation.get_template(StackName=stack, TemplateStage="Original")[
                "TemplateBody"
            ]
            self._before[stack] = found if isinstance(found, str) else json.dumps(found)
        self._cloudformation.update_stack(
            StackName=stack, TemplateBody=template, Capabilities=["CAPABILITY_IAM"]
        )
        self._cloudformation.get_waiter("stack_update_complete").wait(StackName=stack)


@pytest.fixture
def variation(platform: Platform, tmp_path: Path) -> Iterator[Variation]:
    variation = Variation(platform, tmp_path)
    yield variation
    variation.undo()


class Application:
    """A client application: it reads its credentials when it is told to, and then calls without a pause."""

    def __init__(self, platform: Platform, name: str) -> None:
        self._platform, self._name = platform, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self.outcomes: list[str] = []
        self.read()

    def read(self) -> None:
        secret = self._platform.aws("secretsmanager").get_secret_value(
            SecretId=f"inference/local/clients/{self._name}"
        )
        self.held = json.loads(secret["SecretString"])

    def __enter__(self) -> "Application":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take(self, held: Mapping[str, str] | None = None) -> str:
        """A new token with the credentials it holds, or other ones."""
        held = held or self.held
        deployed = self._platform.deployed
        tokens = ClientCredentials(
            deployed.token_url,
            held["client_id"],
            held["client_secret"],
            headers=deployed.token_headers,
            verify=deployed.verify,
        )
        return tokens()

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._platform.call("GET", "/v2", token=self.take())
                self.outcomes.append(str(answer.status_code))
            except (CredentialsError, httpx.HTTPError) as error:
                self.outcomes.append(str(error))


def test_the_secret_is_all_that_an_application_needs(platform: Platform) -> None:
    application = Application(platform, "demo")
    assert application.held.keys() == {"client_id", "client_secret", "token_url", "scope"}
    assert application.held["scope"] == "inference/invoke"
    assert platform.infer("file-type", BODIES["file-type"], token=application.take()).status_code == 200


def test_no_stack_shows_a_credential(platform: Platform) -> None:
    cloudformation, secret = (
        platform.aws("cloudformation"),
        Application(platform, "demo").held["client_secret"],
    )
    for stack in cloudformation.describe_stacks()["Stacks"]:
        name = stack["StackName"]
        shown = [
            stack,
            cloudformation.get_template(StackName=name),
            cloudformation.describe_stack_events(StackName=name),
            cloudformation.describe_stack_resources(StackName=name),
        ]
        assert secret not in json.dumps(shown, default=str), name
    parameters = platform.aws("ssm").get_parameters_by_path(Path="/inference/local", Recursive=True)
    assert secret not in json.dumps(parameters, default=str)


def test_credentials_rotate_without_a_failed_request(platform: Platform, variation: Variation) -> None:
    client = {"name": "rotating", "scopes": ["invoke"]}
    variation.deploy([client])
    with Application(platform, "rotating") as application:
        old = application.held
        variation.deploy([client | {"credentials": [1, 2]}])
        application.read()
        new = application.held
        assert (new["client_id"], new["client_secret"]) != (old["client_id"], old["client_secret"])
        assert application.take(old)
        variation.deploy([client | {"credentials": [2]}])
    assert len(application.outcomes) > 5
    assert set(application.outcomes) == {"200"}
    with pytest.raises(CredentialsError):
        application.take(old)


def test_a_model_with_a_scope_of_its_own_is_closed_to_every_other_token(
    platform: Platform, variation: Variation
) -> None:
    own, shared = "text-embedding", "file-type"
    variation.deploy([{"name": "embedder", "scopes": [f"invoke.{own}"]}], own_scopes=[own])
    tokens = {name: Application(platform, name).take() for name in ("embedder", "demo", "operator")}

    def statuses(model: str) -> dict[str, tuple[int, int]]:
        return {
            name: (
                platform.infer(model, BODIES[model], token=token).status_code,
                platform.call("GET", f"/v2/models/{model}", token=token).status_code,
            )
            for name, token in tokens.items()
        }

    assert statuses(own) == {"embedder": (200, 200), "demo": (401, 401), "operator": (401, 200)}
    assert statuses(shared) == {"embedder": (401, 401), "demo": (200, 200), "operator": (401, 200)}
    for token in tokens.values():
        assert platform.call("GET", "/v2/models", token=token).status_code == 200


def test_a_domain_and_a_private_address_can_be_deployed_over_each_other(
    platform: Platform, variation: Variation
) -> None:
    gateway, ssm = platform.aws("apigateway"), platform.aws("ssm")
    certificate = f"arn:aws:acm:us-east-1:000000000000:certificate/{uuid.UUID(int=0)}"
    variation.deploy(api={"domain": {"name": "inference.example.com", "certificate_arn": certificate}})
    [mapping] = gateway.get_base_path_mappings(domainName="inference.example.com")["items"]
    assert mapping["stage"] == "local"
    domain = gateway.get_domain_name(domainName="inference.example.com")
    assert domain["regionalCertificateArn"] == certificate
    url = ssm.get_parameter(Name="/inference/local/api/url")["Parameter"]["Value"]
    assert url == "https://inference.example.com"

    variation.deploy(api={"private": {"vpc_endpoint_ids": ["vpce-0123456789abcdef0"]}})
    [api] = [each for each in gateway.get_rest_apis()["items"] if each["name"] == "inference-local"]
    assert mapping["restApiId"] == api["id"]
    with pytest.raises(gateway.exceptions.NotFoundException):
        gateway.get_domain_name(domainName="inference.example.com")
    url = ssm.get_parameter(Name="/inference/local/api/url")["Parameter"]["Value"]
    assert url == f"https://{api['id']}-vpce-0123456789abcdef0.execute-api.us-east-1.amazonaws.com/local"


def test_the_firewall_is_associated_with_the_stage(platform: Platform) -> None:
    [api] = [
        a["id"] for a in platform.aws("apigateway").get_rest_apis()["items"] if a["name"] == "inference-local"
    ]
    arn = f"arn:aws:apigateway:us-east-1::/restapis/{api}/stages/local"
    acl = platform.aws("wafv2").get_web_acl_for_resource(ResourceArn=arn)["WebACL"]
    assert acl["Name"] == "inference-local"
