"""A deployed environment without AWS: moto holds what its stacks publish, a loopback server is its API."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.unit.inferctl.fake_api import Api, Request


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A program that a script starts in the background inherits a SIGINT that is ignored; CI may be one."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


@pytest.fixture
def api() -> Iterator[Api]:
    served = Api()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            served.requests.append(request)
            status, document, extra = served.answer(request)
            text = json.dumps(document).encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | extra).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Clients of moto's AWS in us-east-1, which boto3's defaults lead to as well."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "INFERENCE_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield lambda service: boto3.client(service, region_name="us-east-1")


@pytest.fixture
def dev(aws: Callable[[str], Any], api: Api) -> Api:
    """The environment `dev`, deployed with its two clients; its API."""
    cognito, ssm = aws("cognito-idp"), aws("ssm")
    pool = cognito.create_user_pool(PoolName="inference-dev")["UserPool"]["Id"]
    parameters = {
        "api/url": f"{api.url}/dev",
        "identity/user-pool-id": pool,
        "identity/token-url": f"{api.url}/oauth2/token",
    }
    for name, scopes in (("demo", "invoke"), ("operator", "admin")):
        client = cognito.create_user_pool_client(UserPoolId=pool, ClientName=name, GenerateSecret=True)
        client = client["UserPoolClient"]
        api.secrets[client["ClientId"]] = (client["ClientSecret"], scopes)
        held = {"client_id": client["ClientId"], "client_secret": client["ClientSecret"]}
        aws("secretsmanager").create_secret(
            Name=f"inference/dev/clients/{name}", SecretString=json.dumps(held)
        )
    for path, value in parameters.items():
        ssm.put_parameter(Name=f"/inference/dev/{path}", Value=value, Type="String")
    return api
