"""Who may call: tokens of clients (AWS_FACTS §8), and roles and policies of integrations."""

import base64
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.integration.local_aws.gateway.client import Api, Cloud, Method, function, mock, sagemaker

HANDLER = """\
import json
def handler(event, context):
    return {"statusCode": 200, "body": json.dumps(event["requestContext"])}
"""


@dataclass
class Pool:
    """A user pool with the scopes inference/invoke and inference/admin, and clients that have them."""

    cloud: Cloud
    id: str
    domain: str

    @classmethod
    def create(cls, cloud: Cloud) -> "Pool":
        cognito, name = cloud.client("cognito-idp"), f"pool-{uuid.uuid4().hex[:8]}"
        pool_id = cognito.create_user_pool(PoolName=name)["UserPool"]["Id"]
        scopes = [{"ScopeName": scope, "ScopeDescription": scope} for scope in ("invoke", "admin")]
        cognito.create_resource_server(
            UserPoolId=pool_id, Identifier="inference", Name="inference", Scopes=scopes
        )
        cognito.create_user_pool_domain(UserPoolId=pool_id, Domain=name)
        return cls(cloud, pool_id, name)

    @property
    def arn(self) -> str:
        return f"arn:aws:cognito-idp:us-east-1:000000000000:userpool/{self.id}"

    def token(self, scope: str = "inference/invoke") -> str:
        client = self.cloud.client("cognito-idp").create_user_pool_client(
            UserPoolId=self.id,
            ClientName="c",
            GenerateSecret=True,
            AllowedOAuthFlows=["client_credentials"],
            AllowedOAuthFlowsUserPoolClient=True,
            AllowedOAuthScopes=[scope],
        )["UserPoolClient"]
        response = self.cloud.http.post(
            f"{self.cloud.state.endpoint}/oauth2/token",
            data={"grant_type": "client_credentials", "scope": scope},
            auth=(client["ClientId"], client["ClientSecret"]),
            headers={"Host": f"{self.domain}.auth.us-east-1.amazoncognito.com"},
        )
        token: str = response.json()["access_token"]
        return token

    def signing_key(self) -> rsa.RSAPrivateKey:
        """The pool's own key, from the server's state: to sign what the pool itself would not."""
        state = self.cloud.log_file.parent / "state"
        (path,) = Path(state).glob(f"**/{self.id}-access.pem")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key


def decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = (
        json.loads(base64.urlsafe_b64decode(part + "==")) if i < 2 else {}
        for i, part in enumerate(token.split("."))
    )
    return header, claims


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: rsa.RSAPrivateKey) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture(scope="module")
def pool(cloud: Cloud) -> Pool:
    return Pool.create(cloud)


@pytest.fixture(scope="module")
def api(cloud: Cloud, pool: Pool) -> Api:
    """`/scoped` asks for inference/invoke or inference/admin, `/unscoped` for an identity token."""
    created = cloud.gateway.create_rest_api(name="tokens")
    authorizer = cloud.gateway.create_authorizer(
        restApiId=created["id"],
        name="pool",
        type="COGNITO_USER_POOLS",
        providerARNs=[pool.arn],
        identitySource="method.request.header.Authorization",
    )["id"]
    api = Api(cloud, created["id"], created["name"])
    cognito = {"authorizationType": "COGNITO_USER_POOLS", "authorizerId": authorizer}
    scopes = {"authorizationScopes": ["inference/invoke", "inference/write"]}
    for path, authorization in (("/scoped", {**cognito, **scopes}), ("/unscoped", cognito)):
        method = mock(path, '{"client":"$context.authorizer.claims.client_id"}')
        api.put(Method(path, "GET", method.integration, method.responses, method.declared, {}, authorization))
    api.deploy()
    return api


def status(api: Api, token: str | None, path: str = "/scoped") -> int:
    return api.call(path, headers={} if token is None else {"Authorization": f"Bearer {token}"}).status_code


def test_a_token_with_one_of_the_scopes_passes_and_its_claims_are_in_the_context(
    api: Api, pool: Pool
) -> None:
    token = pool.token("inference/invoke")
    response = api.call("/scoped", headers={"Authorization": f"Bearer {token}"})
    assert (response.status_code, response.json()) == (200, {"client": decode(token)[1]["client_id"]})


def test_a_token_without_any_of_the_scopes_is_401(api: Api, pool: Pool) -> None:
    assert status(api, pool.token("inference/admin")) == 401


def test_without_scopes_on_the_method_an_access_token_is_401_because_an_identity_token_is_expected(
    api: Api, pool: Pool
) -> None:
    assert status(api, pool.token(), "/unscoped") == 401


@pytest.mark.parametrize("token", [None, "garbage", "a.b.c"])
def test_a_missing_or_garbage_token_is_401(api: Api, token: str | None) -> None:
    assert status(api, token) == 401


def test_a_token_signed_with_another_key_is_401(api: Api, pool: Pool) -> None:
    header, claims = decode(pool.token())
    assert status(api, sign(header, claims, pool.signing_key())) == 200
    assert (
        status(api, sign(header, claims, rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        == 401
    )


@pytest.mark.parametrize(
    "changed",
    [{"exp": time.time() - 60}, {"iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_other"}],
)
def test_an_expired_token_or_one_of_another_issuer_is_401(
    api: Api, pool: Pool, changed: dict[str, Any]
) -> None:
    header, claims = decode(pool.token())
    assert status(api, sign(header, {**claims, **changed}, pool.signing_key())) == 401


def test_a_token_of_another_pool_is_401(cloud: Cloud, api: Api) -> None:
    assert status(api, Pool.create(cloud).token()) == 401


def test_a_token_of_a_deleted_pool_is_401(cloud: Cloud) -> None:
    pool = Pool.create(cloud)
    created = cloud.gateway.create_rest_api(name="gone")
    authorizer = cloud.gateway.create_authorizer(
        restApiId=created["id"],
        name="pool",
        type="COGNITO_USER_POOLS",
        providerARNs=[pool.arn],
        identitySource="method.request.header.Authorization",
    )["id"]
    method = mock("/m")
    method.authorization = {
        "authorizationType": "COGNITO_USER_POOLS",
        "authorizerId": authorizer,
        "authorizationScopes": ["inference/invoke"],
    }
    api = Api(cloud, created["id"], "gone")
    api.put(method)
    api.deploy()
    token = pool.token()
    assert status(api, token, "/m") == 200
    cognito = cloud.client("cognito-idp")
    cognito.delete_user_pool_domain(UserPoolId=pool.id, Domain=pool.domain)
    cognito.delete_user_pool(UserPoolId=pool.id)
    assert status(api, token, "/m") == 401


# --- Integrations -------------------------------------------------------------------------------------------


def invoke(arn: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}


def refused(cloud: Cloud, method: Method) -> str:
    """The reason in the log of a call that the configuration does not permit."""
    response = cloud.api(method).call(method.path, method.verb, json={})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    return next(line for line in cloud.log().splitlines() if response.headers["x-amzn-requestid"] in line)


@pytest.fixture(scope="module")
def arn(cloud: Cloud) -> str:
    return cloud.function(HANDLER)


def test_a_function_is_invoked_with_the_integrations_role(cloud: Cloud, arn: str) -> None:
    response = cloud.api(function("/m", arn, cloud.role(invoke(arn)))).post("/m")
    assert response.status_code == 200
    assert response.json()["requestId"] == response.headers["x-amzn-requestid"]


@pytest.mark.parametrize("other", [":other", "x"])
def test_a_role_that_allows_another_function_or_alias_is_refused(cloud: Cloud, arn: str, other: str) -> None:
    reason = refused(cloud, function("/m", arn, cloud.role(invoke(arn + other))))
    assert "Invalid permissions on Lambda function" in reason


def test_a_role_that_api_gateway_may_not_assume_is_refused(cloud: Cloud, arn: str) -> None:
    role = cloud.role(invoke("*"), service="ec2.amazonaws.com")
    assert f"API Gateway does not have permission to assume the provided role {role}" in refused(
        cloud, function("/m", arn, role)
    )


def test_a_role_that_does_not_exist_is_refused(cloud: Cloud, arn: str) -> None:
    reason = refused(cloud, function("/m", arn, "arn:aws:iam::000000000000:role/none"))
    assert "does not have permission to assume" in reason


def test_a_denial_in_the_role_wins(cloud: Cloud, arn: str) -> None:
    role = cloud.role(invoke("*"), {**invoke(arn), "Effect": "Deny"})
    assert "Invalid permissions" in refused(cloud, function("/m", arn, role))


def test_without_a_role_the_functions_policy_decides_by_the_methods_arn(cloud: Cloud) -> None:
    arn = cloud.function(HANDLER)
    api = cloud.api(function("/m", arn), function("/other", arn))
    assert api.post("/m").status_code == 500
    cloud.client("lambda").add_permission(
        FunctionName=arn,
        StatementId="gateway",
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:aws:execute-api:us-east-1:000000000000:{api.id}/*/POST/m",
    )
    assert (api.post("/m").status_code, api.post("/other").status_code) == (200, 500)


def test_an_alias_needs_a_permission_of_its_own(cloud: Cloud) -> None:
    arn, functions = cloud.function(HANDLER), cloud.client("lambda")
    version = functions.publish_version(FunctionName=arn)["Version"]
    alias = functions.create_alias(FunctionName=arn, Name="live", FunctionVersion=version)["AliasArn"]
    permission = {"Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com"}
    functions.add_permission(FunctionName=arn, StatementId="a", **permission)
    api = cloud.api(function("/m", alias))
    assert api.post("/m").status_code == 500
    functions.add_permission(FunctionName=arn, Qualifier="live", StatementId="b", **permission)
    assert api.post("/m").status_code == 200


def test_an_endpoint_that_the_role_does_not_allow_answers_403_through_the_mapping(cloud: Cloud) -> None:
    """SageMaker itself refuses, so the integration's responses decide what the client reads of it."""
    statement = {
        "Effect": "Allow",
        "Action": "sagemaker:InvokeEndpoint",
        "Resource": "arn:aws:sagemaker:us-east-1:000000000000:endpoint/echo",
    }
    role = cloud.role(statement)
    responses = (
        {"statusCode": "200", "selectionPattern": "200"},
        {
            "statusCode": "503",
            "selectionPattern": "403",
            "responseTemplates": {"application/json": "refused"},
        },
    )
    api = cloud.api(
        sagemaker("/echo", "echo", role, *responses), sagemaker("/script", "script", role, *responses)
    )
    assert api.post("/echo", json={}).status_code == 200
    denied = api.post("/script", json={})
    assert (denied.status_code, denied.text) == (503, "refused")
    assert "is not authorized to perform: sagemaker:InvokeEndpoint" in cloud.log()


def test_an_endpoint_without_a_role_is_called_unsigned_and_refused(cloud: Cloud) -> None:
    response = cloud.api(sagemaker("/m", "echo", None)).post("/m", json={})
    assert response.json() == {"message": "Missing Authentication Token"}
