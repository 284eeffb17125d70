"""Who may call: credentials, scopes of single models, rotation, and people who log in."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from app import ROOT
from catalog.environment import Environment
from catalog.loader import Platform, load_platform
from catalog.model import ModelSpec
from stacks.api import ApiStack
from stacks.identity import IdentityStack
from tests.assembly import NAG_PACKS, Assembly, assemble

CALLBACK = "https://console.example.com/login"


def callers_and_api(app: cdk.App, environment: Environment, models: Sequence[ModelSpec]) -> None:
    IdentityStack(app, environment, models)
    ApiStack(app, environment, models)


def variant(folder: Path, config: dict[str, Any], **models: dict[str, Any]) -> Assembly:
    """Both stacks of `dev` with other sections: of its configuration, and of models by their names."""
    found = load_platform(ROOT, "dev")
    environment = found.environment.model_dump(mode="json", exclude_unset=True) | {"probe": None} | config
    changed = tuple(
        type(spec).model_validate(spec.model_dump(mode="json") | models.get(spec.name, {}))
        for spec in found.models
    )
    platform = Platform(Environment.model_validate(environment), changed)
    return assemble(folder, platform, callers_and_api)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """A model with its own scope, a client in the middle of its rotation, login by OIDC, a domain."""
    own = {"access": {"scope": "own"}}
    return variant(
        tmp_path_factory.mktemp("varied"),
        {
            "clients": [
                {"name": "rotating", "scopes": ["invoke.text-embedding"], "credentials": [2, 3]},
                {"name": "operator", "scopes": ["admin"]},
            ],
            "login": {
                "scopes": ["invoke", "admin"],
                "callback_urls": [CALLBACK],
                "session_hours": 8,
                "federation": {
                    "name": "staff",
                    "oidc": {
                        "issuer": "https://login.example.com",
                        "client_id": "inference",
                        "secret": "login/staff",
                    },
                },
            },
            "api": {
                "domain": {
                    "name": "inference.example.com",
                    "certificate_arn": f"arn:aws:acm:us-east-1:111122223333:certificate/{'0' * 8}-{'0' * 4}-"
                    f"{'0' * 4}-{'0' * 4}-{'0' * 12}",
                    "hosted_zone_id": "Z0123456789ABC",
                },
            },
        },
        **{"text-embedding": own, "file-type": own},
    )


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """An API that only two VPC endpoints reach, without a firewall; login by SAML."""
    return variant(
        tmp_path_factory.mktemp("private"),
        {
            "login": {
                "scopes": ["invoke"],
                "callback_urls": [CALLBACK],
                "federation": {
                    "name": "staff",
                    "saml": {"metadata_url": "https://login.example.com/metadata"},
                },
            },
            "api": {"private": {"vpc_endpoint_ids": ["vpce-0123456789abcdef0", "vpce-0aaaaaaaaaaaaaaaa"]}},
            "firewall": {"enabled": False},
        },
    )


def clients(assembly: Assembly) -> dict[str, dict[str, Any]]:
    return {c.logical_id: c.properties for c in assembly.resources("AWS::Cognito::UserPoolClient")}


def secrets(assembly: Assembly) -> dict[str, list[Any]]:
    """Name -> the parts of the secret's value, texts and references."""
    return {
        s.properties["Name"]: s.properties["SecretString"]["Fn::Join"][1]
        for s in assembly.resources("AWS::SecretsManager::Secret")
    }


def operations(assembly: Assembly) -> dict[tuple[str, str], set[str]]:
    """Path and method -> the scopes of which a token needs one."""
    body = assembly.one("AWS::ApiGateway::RestApi").properties["Body"]
    return {
        (path, method): set(operation["security"][0]["Cognito"])
        for path, methods in body["paths"].items()
        for method, operation in methods.items()
    }


class TestSecrets:
    def test_every_client_has_one_that_only_its_key_opens(self, assembly: Assembly) -> None:
        found = list(assembly.resources("AWS::SecretsManager::Secret"))
        prefix = f"inference/{assembly.environment}/clients"
        assert {s.properties["Name"] for s in found} == {
            f"{prefix}/{name}" for name in ("demo", "operator", "probe")
        }
        for secret in found:
            assert "keyssecrets" in secret.properties["KmsKeyId"]["Ref"]

    def test_it_holds_what_a_client_needs_to_take_a_token(self, dev: Assembly) -> None:
        parts = secrets(dev)["inference/dev/clients/demo"]
        document = json.loads("".join(p if isinstance(p, str) else next(iter(p)) for p in parts))
        assert list(document) == ["client_id", "client_secret", "token_url", "scope"]
        assert document["scope"] == "inference/invoke"
        assert document["token_url"].endswith(".amazoncognito.com/oauth2/token")

    def test_while_a_client_rotates_both_credentials_count_and_the_newest_is_handed_out(
        self, varied: Assembly
    ) -> None:
        apps = {name: c for name, c in clients(varied).items() if c["ClientName"] == "rotating"}
        assert len(apps) == 2
        assert len({json.dumps(app, sort_keys=True) for app in apps.values()}) == 1
        [read] = [
            p["Fn::GetAtt"] for p in secrets(varied)["inference/dev/clients/rotating"] if "Fn::GetAtt" in p
        ]
        assert read == [next(name for name in apps if name.startswith("Poolrotating3")), "ClientSecret"]

    def test_a_first_credential_stays_the_same_app_client_when_a_second_joins_it(self, dev: Assembly) -> None:
        # The logical id is what CloudFormation knows it by; another would replace it, and end its tokens.
        assert "Pooldemo8740DB21" in clients(dev)


class TestScopes:
    def test_a_model_with_a_scope_of_its_own_is_opened_by_it_alone(self, varied: Assembly) -> None:
        for name in ("text-embedding", "file-type"):
            own = f"inference/invoke.{name}"
            assert operations(varied)[f"/v2/models/{name}/infer", "post"] == {own}
            assert operations(varied)[f"/v2/models/{name}", "get"] == {own, "inference/admin"}
            assert operations(varied)[f"/v2/models/{name}/ready", "get"] == {own, "inference/admin"}

    def test_whoever_may_do_anything_may_see_what_there_is(self, varied: Assembly) -> None:
        offered = {f"inference/{scope['ScopeName']}" for scope in server_scopes(varied)}
        assert operations(varied)["/v2/models", "get"] == offered
        assert operations(varied)["/v2/health/live", "get"] == offered

    def test_the_resource_server_offers_exactly_what_the_catalog_asks_for(
        self, dev: Assembly, varied: Assembly
    ) -> None:
        assert {s["ScopeName"] for s in server_scopes(dev)} == {"invoke", "admin"}
        own = {"invoke.text-embedding", "invoke.file-type"}
        assert {s["ScopeName"] for s in server_scopes(varied)} == {"invoke", "admin"} | own

    def test_a_client_is_given_its_scopes_and_no_other(self, varied: Assembly) -> None:
        for client in clients(varied).values():
            given = {
                part["Fn::Join"][1][1] for part in client["AllowedOAuthScopes"] if isinstance(part, dict)
            }
            expected = {
                "rotating": {"/invoke.text-embedding"},
                "operator": {"/admin"},
                "login": {"/invoke", "/admin"},
            }
            assert given == expected[client["ClientName"]]

    def test_a_model_that_nobody_may_call_is_a_warning(self, varied: Assembly) -> None:
        manifest = json.loads((varied.folder / "inference-dev-identity.metadata.json").read_text())
        warnings = [
            entry["data"]
            for entries in manifest.values()
            for entry in entries
            if entry["type"] == "aws:cdk:warning"
        ]
        assert len(warnings) == 1
        assert "Nobody may call the model file-type" in warnings[0]


def server_scopes(assembly: Assembly) -> list[dict[str, Any]]:
    scopes: list[dict[str, Any]] = assembly.one("AWS::Cognito::UserPoolResourceServer").properties["Scopes"]
    return scopes


class TestLogin:
    def test_it_is_off_unless_configured(self, assembly: Assembly) -> None:
        for client in clients(assembly).values():
            assert client["AllowedOAuthFlows"] == ["client_credentials"]
            assert client["GenerateSecret"] is True

    def test_people_get_a_code_and_the_browser_no_secret(self, varied: Assembly) -> None:
        [login] = [c for c in clients(varied).values() if c["ClientName"] == "login"]
        assert login["AllowedOAuthFlows"] == ["code"]
        assert login["GenerateSecret"] is False
        assert login["CallbackURLs"] == [CALLBACK]
        assert login["SupportedIdentityProviders"] == ["staff"]
        assert login["RefreshTokenValidity"] == 8 * 60
        assert not {"ALLOW_USER_PASSWORD_AUTH", "ALLOW_USER_SRP_AUTH"} & set(
            login.get("ExplicitAuthFlows", [])
        )

    def test_a_second_factor_is_required_and_logins_are_watched(self, varied: Assembly) -> None:
        pool = varied.one("AWS::Cognito::UserPool").properties
        assert pool["MfaConfiguration"] == "ON"
        assert pool["EnabledMfas"] == ["SOFTWARE_TOKEN_MFA"]
        assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
        assert pool["UserPoolTier"] == "PLUS"
        assert pool["UserPoolAddOns"]["AdvancedSecurityMode"] == "ENFORCED"

    def test_the_identity_providers_secret_is_read_when_it_is_deployed(self, varied: Assembly) -> None:
        details = varied.one("AWS::Cognito::UserPoolIdentityProvider").properties["ProviderDetails"]
        assert (
            details["client_secret"] == "{{resolve:secretsmanager:login/staff:SecretString:client_secret::}}"
        )

    def test_saml_is_configured_by_its_metadata(self, private: Assembly) -> None:
        provider = private.one("AWS::Cognito::UserPoolIdentityProvider").properties
        assert provider["ProviderType"] == "SAML"
        assert provider["ProviderDetails"]["MetadataURL"] == "https://login.example.com/metadata"


class TestFrontDoor:
    def test_by_default_it_is_public_and_regional(self, assembly: Assembly) -> None:
        api = assembly.one("AWS::ApiGateway::RestApi").properties
        assert api["EndpointConfiguration"]["Types"] == ["REGIONAL"]
        assert not api.get("DisableExecuteApiEndpoint", False)
        assert not list(assembly.resources("AWS::ApiGateway::DomainName"))

    def test_a_domain_is_the_only_address_and_takes_no_old_tls(self, varied: Assembly) -> None:
        domain = varied.one("AWS::ApiGateway::DomainName").properties
        assert domain["SecurityPolicy"] == "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"
        assert domain["EndpointAccessMode"] == "STRICT"
        assert domain["EndpointConfiguration"]["Types"] == ["REGIONAL"]
        assert varied.one("AWS::ApiGateway::RestApi").properties["DisableExecuteApiEndpoint"] is True
        assert shared(varied, "api/url") == "https://inference.example.com"
        mapping = varied.one("AWS::ApiGateway::BasePathMapping").properties
        assert mapping["Stage"] == {"Ref": varied.one("AWS::ApiGateway::Stage").logical_id}
        assert "BasePath" not in mapping
        alias = varied.one("AWS::Route53::RecordSet").properties
        assert alias["Name"] == "inference.example.com"
        assert alias["HostedZoneId"] == "Z0123456789ABC"

    def test_a_private_api_admits_its_vpc_endpoints_and_nothing_else(self, private: Assembly) -> None:
        api = private.one("AWS::ApiGateway::RestApi").properties
        ids = ["vpce-0123456789abcdef0", "vpce-0aaaaaaaaaaaaaaaa"]
        assert api["EndpointConfiguration"] == {"Types": ["PRIVATE"], "VpcEndpointIds": ids}
        assert api["Parameters"]["endpointConfigurationTypes"] == "PRIVATE"
        [allowed] = api["Policy"]["Statement"]
        assert allowed["Effect"] == "Allow"
        assert allowed["Condition"] == {"StringEquals": {"aws:SourceVpce": ids}}
        url = shared(private, "api/url")
        assert url["Fn::Join"][1][0] == "https://"
        assert url["Fn::Join"][1][2].startswith(f"-{ids[0]}.execute-api.us-east-1.")

    def test_a_changed_policy_is_deployed(self, private: Assembly, tmp_path: Path) -> None:
        changed = variant(
            tmp_path / "out",
            {
                "api": {"private": {"vpc_endpoint_ids": ["vpce-0bbbbbbbbbbbbbbbb"]}},
                "firewall": {"enabled": False},
            },
        )
        before, after = (a.one("AWS::ApiGateway::Deployment").logical_id for a in (private, changed))
        assert before != after


def shared(assembly: Assembly, path: str) -> Any:
    [parameter] = [
        p.properties["Value"]
        for p in assembly.resources("AWS::SSM::Parameter")
        if p.properties["Name"] == f"/inference/{assembly.environment}/{path}"
    ]
    return parameter


def test_cdk_nag_finds_nothing_in_any_variant(varied: Assembly, private: Assembly) -> None:
    for assembly in (varied, private):
        for pack in NAG_PACKS:
            found = [(v["ruleName"], v["description"]) for v in assembly.nag(pack)["violations"]]
            assert found == []


def test_cloudformation_schemas_accept_every_variant(varied: Assembly, private: Assembly) -> None:
    templates = [*varied.folder.glob("*.template.json"), *private.folder.glob("*.template.json")]
    lint = [Path(sys.executable).with_name("cfn-lint"), *templates]
    done = subprocess.run(lint, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
