"""What is refused of callers, scopes, addresses and the firewall, and what it is told."""

# ruff: noqa: E501  a case and what it is told stand on one line

from pathlib import Path

import pytest

from catalog import Environment, load_environment, load_platform
from catalog.callers import SCOPES_PER_SERVER
from catalog.scopes import uncalled
from tests.unit.catalog.test_catalog_files import CPU, ENVIRONMENT, environment_problems, refused, write

OWN = CPU + "access: {scope: own}\n"
LOGIN = "login: {scopes: [invoke], callback_urls: ['https://a.example.com/cb']"
DOMAIN = "name: a.example.com, certificate_arn: 'arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-0000-0000-000000000000'"
MANY = ", ".join(f"invoke.model-{i}" for i in range(51))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("clients: [{name: abc, scopes: [invoke, invoke]}]", "clients[0].scopes[1]: 'invoke' is not allowed: is listed twice"),
        ("clients: [{name: abc, scopes: [invoke.A]}]", "clients[0].scopes[0]: 'invoke.A' is not allowed: What its tokens allow: `invoke` (call"),
        (f"clients: [{{name: abc, scopes: [{MANY}]}}]", "clients[0].scopes: 51 is not allowed: is more scopes than Cognito's quota per app client (50, not adjustable)"),
        ("clients: [{name: abc, scopes: [invoke], credentials: [2, 1]}]", "clients[0].credentials: [2, 1] is not allowed: must count up, as [1, 2]"),
        ("clients: [{name: abc, scopes: [invoke], credentials: [1, 2, 3]}]", "clients[0].credentials: [1, 2, 3] is not allowed: must have at most 2 items"),
        ("clients: [{name: abc, scopes: [invoke], credentials: []}]", "clients[0].credentials: [] is not allowed: must have at least 1 item(s)"),
        (LOGIN.replace("https:", "http:") + "}", "login.callback_urls[0]: 'http://a.example.com/cb' is not allowed: Where Cognito may send the browser with a code after login: exact https"),
        (LOGIN.replace("/cb", "/cb#x") + "}", "login.callback_urls[0]: 'https://a.example.com/cb#x' is not allowed: "),
        (LOGIN.replace("a.example", "*.example") + "}", "login.callback_urls[0]: 'https://*.example.com/cb' is not allowed: "),
        (LOGIN + ", federation: {name: staff}}", "login.federation: {'name': 'staff'} is not allowed: must have exactly one of saml and oidc"),
        (LOGIN + ", federation: {name: staff, saml: {metadata_url: 'http://x.example.com/m'}}}", "login.federation.saml.metadata_url: 'http://x.example.com/m' is not allowed: Address of the provider's metadata document (https)"),
        (LOGIN + ", federation: {name: staff, oidc: {issuer: 'https://x.example.com', client_id: a}}}", "login.federation.oidc.secret: is required: Name of the secret in Secrets Manager"),
        ("api: {domain: {" + DOMAIN.replace("a.example.com", "https://a.example.com") + "}}", "api.domain.name: 'https://a.example.com' is not allowed: The host name, as `inference.example.com`"),
        ("api: {domain: {" + DOMAIN.replace("us-east-1", "eu-west-1") + "}}", "api.domain.certificate_arn: 'arn:aws:acm:eu-west-1:111122223333:certificate/00000000-0000-0000-0000-00000... is not allowed: must be in us-east-1, the API's region"),
        ("api: {domain: {" + DOMAIN + "}, private: {vpc_endpoint_ids: [vpce-01234567]}}", "api.private: {'vpc_endpoint_ids': ('vpce-01234567',)} is not allowed: cannot be combined with api.domain"),
        ("api: {private: {vpc_endpoint_ids: [vpc-01234567]}}", "api.private.vpc_endpoint_ids[0]: 'vpc-01234567' is not allowed: The interface endpoints of execute-api"),
        ("api: {private: {vpc_endpoint_ids: []}}", "api.private.vpc_endpoint_ids: [] is not allowed: must have at least 1 item(s)"),
        ("firewall: {requests_per_ip: 9}", "firewall.requests_per_ip: 9 is not allowed: must be >= 10"),
        ("firewall: {inspected_body_kb: 8}", "firewall.inspected_body_kb: 8 is not allowed: must be one of 16, 32, 48 or 64"),
    ],
)  # fmt: skip
def test_a_refused_value_is_told_what_is_allowed(tmp_path: Path, section: str, problem: str) -> None:
    lines = environment_problems(tmp_path, f"{ENVIRONMENT}{section}\n")
    assert lines[0].startswith(f"config/dev.yaml:6: {problem}"), lines


def test_more_app_clients_than_cognitos_quota_are_refused_by_its_name(tmp_path: Path) -> None:
    clients = "".join(f"- {{name: app-{i}, scopes: [invoke], credentials: [1, 2]}}\n" for i in range(500))
    (line,) = environment_problems(tmp_path, f"{ENVIRONMENT}clients:\n{clients}")
    assert "clients: 1000 is not allowed" in line
    assert "Cognito's quota is 1000 app clients per user pool" in line


class TestScopes:
    def platform(self, tmp_path: Path, model: str, clients: str) -> Path:
        write(tmp_path, "models/tiny/model.yaml", model)
        write(tmp_path, "config/dev.yaml", ENVIRONMENT + clients)
        return tmp_path

    def client(self, scopes: str) -> str:
        return f"clients:\n  - name: app\n    scopes: [{scopes}]\n"

    def test_a_scope_of_a_model_that_is_not_there_is_refused_in_its_line(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, OWN, self.client("invoke, invoke.tyni"))
        assert refused(lambda: load_platform(root, "dev")) == [
            "config/dev.yaml:8: clients[0].scopes[1]: 'invoke.tyni' is not allowed: there is no model tyni; models "
            "with a scope of their own: tiny"
        ]

    def test_a_scope_of_a_model_that_shares_invoke_is_refused(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, CPU, LOGIN.replace("[invoke]", "[invoke.tiny]") + "}\n")
        (line,) = refused(lambda: load_platform(root, "dev"))
        assert line.startswith(
            "config/dev.yaml:6: login.scopes[0]: 'invoke.tiny' is not allowed: the model tiny"
        )
        assert "list 'invoke'" in line

    def test_more_models_with_their_own_than_a_resource_server_holds_are_refused(
        self, tmp_path: Path
    ) -> None:
        room = SCOPES_PER_SERVER - 2
        for i in range(room + 1):
            name = f"model-{i:03}"
            write(tmp_path, f"models/{name}/model.yaml", OWN.replace("tiny", name, 1))
        write(tmp_path, "config/dev.yaml", ENVIRONMENT)
        (line,) = refused(lambda: load_platform(tmp_path, "dev"))
        assert line.startswith(
            f"models/model-{room:03}/model.yaml:1: access.scope: 'own' is not allowed: with"
        )
        assert "100 scopes per resource server (not adjustable) leaves room for 98" in line

    def test_a_model_that_nobody_lists_is_allowed_and_found(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, OWN, self.client("invoke"))
        platform = load_platform(root, "dev")
        assert uncalled(platform.environment, platform.models) == ["tiny"]
        root = self.platform(tmp_path, OWN, self.client("invoke.tiny"))
        platform = load_platform(root, "dev")
        assert uncalled(platform.environment, platform.models) == []


def test_the_firewall_is_on_and_login_off_unless_said_otherwise(tmp_path: Path) -> None:
    write(tmp_path, "dev.yaml", ENVIRONMENT)
    environment: Environment = load_environment(tmp_path, "dev")
    assert environment.firewall.enabled
    assert environment.login is None
    assert (environment.api.domain, environment.api.private) == (None, None)
