"""Builds REST APIs through the API Gateway API and calls them over HTTPS."""

import dataclasses
import io
import json
import ssl
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx

from local_aws import launcher
from local_aws.state import Home, State, read_state

SERVER = Path(__file__).with_name("server.py")
ROOT = Path(__file__).resolve().parents[4]


@contextmanager
def running(path: Path) -> Iterator["Cloud"]:
    home = Home(path)
    path.mkdir(parents=True, exist_ok=True)
    home.temporary.mkdir(parents=True, exist_ok=True)
    with home.log.open("wb") as log, launcher.listen(0) as listener:
        environment = launcher.server_environment(home, listener)
        process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "STATE_DIR": str(path / "state")},
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
    try:
        cloud = Cloud(_wait(home, process), home.log)
        with closing(cloud):
            yield cloud
    finally:
        process.terminate()
        process.wait(timeout=15)


def _wait(home: Home, process: "subprocess.Popen[bytes]") -> State:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        state = read_state(home)
        if state is not None and launcher._answers(state):
            return state
        time.sleep(0.05)
    raise RuntimeError(home.log.read_text())


@dataclasses.dataclass
class Cloud:
    state: State
    log_file: Path

    def __post_init__(self) -> None:
        self.session = boto3.Session(
            aws_access_key_id=self.state.access_key_id,
            aws_secret_access_key=self.state.secret_access_key,
            region_name=self.state.region,
        )
        self.http = httpx.Client(verify=ssl.create_default_context(cafile=self.state.ca_bundle), timeout=30)
        self._clients: dict[str, Any] = {}
        self.gateway = self.client("apigateway")

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.session.client(
                service, endpoint_url=self.state.endpoint, verify=self.state.ca_bundle
            )
        return self._clients[service]

    def close(self) -> None:
        """Leave no connection open: the server would wait for it when it stops."""
        self.http.close()
        for client in self._clients.values():
            client.close()

    def log(self) -> str:
        return self.log_file.read_text()

    def function(self, source: str, **settings: Any) -> str:
        """A Python function with this source of `index.py` and these settings; its ARN."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("index.py", source)
        role = self.role(service="lambda.amazonaws.com")
        arn: str = self.client("lambda").create_function(
            FunctionName=f"function-{uuid.uuid4().hex[:8]}",
            Runtime="python3.11",
            Handler="index.handler",
            Role=role,
            Code={"ZipFile": archive.getvalue()},
            **settings,
        )["FunctionArn"]
        return arn

    def role(self, *statements: dict[str, Any], service: str = "apigateway.amazonaws.com") -> str:
        """A role that `service` may assume and that has these statements; its ARN."""
        iam, name = self.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=_policy(*statements))
        return arn

    def api(
        self,
        *methods: "Method",
        binary: tuple[str, ...] = (),
        compressed_from: int | None = None,
        **stage: Any,
    ) -> "Api":
        """A deployed API with these methods."""
        least = {} if compressed_from is None else {"minimumCompressionSize": compressed_from}
        created = self.gateway.create_rest_api(
            name=f"api-{uuid.uuid4().hex[:8]}", binaryMediaTypes=list(binary), **least
        )
        api = Api(self, created["id"], created["name"])
        for method in methods:
            api.put(method)
        api.deploy(**stage)
        return api


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


ALLOW_ENDPOINTS = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": "*"}
ALLOW_LOGS = {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}


@dataclasses.dataclass
class Method:
    """A method, its integration and its responses; the words are those of the API Gateway API."""

    path: str
    verb: str = "GET"
    integration: dict[str, Any] = dataclasses.field(default_factory=dict)
    responses: tuple[dict[str, Any], ...] = ()
    declared: dict[str, dict[str, bool]] = dataclasses.field(default_factory=dict)
    request: dict[str, bool] = dataclasses.field(default_factory=dict)
    authorization: dict[str, Any] = dataclasses.field(default_factory=lambda: {"authorizationType": "NONE"})


def mock(path: str, template: str | None = '{"ok":true}', verb: str = "GET", **response: Any) -> Method:
    templates = {"responseTemplates": {"application/json": template}} if template is not None else {}
    return Method(
        path,
        verb,
        {"type": "MOCK", "requestTemplates": {"application/json": '{"statusCode": 200}'}},
        ({"statusCode": "200", **templates, **response},),
        {"200": dict.fromkeys(response.get("responseParameters", {}), True)},
    )


def function(path: str, arn: str, role: str | None = None, verb: str = "POST", **integration: Any) -> Method:
    """An AWS_PROXY method."""
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations"
    credentials = {"credentials": role} if role else {}
    proxy = {"type": "AWS_PROXY", "integrationHttpMethod": "POST", "uri": uri}
    return Method(path, verb, {**proxy, **credentials, **integration})


def sagemaker(
    path: str,
    endpoint: str,
    role: str | None,
    *responses: dict[str, Any],
    declared: dict[str, dict[str, bool]] | None = None,
    request: dict[str, bool] | None = None,
    **integration: Any,
) -> Method:
    answers = responses or ({"statusCode": "200"},)
    return Method(
        path,
        "POST",
        {
            "type": "AWS",
            "integrationHttpMethod": "POST",
            "uri": f"arn:aws:apigateway:us-east-1:runtime.sagemaker:path/endpoints/{endpoint}/invocations",
            **({"credentials": role} if role else {}),
            **integration,
        },
        tuple(answers),
        {
            **{
                answer["statusCode"]: dict.fromkeys(answer.get("responseParameters", {}), True)
                for answer in answers
            },
            **(declared or {}),
        },
        request or {},
    )


@dataclasses.dataclass
class Api:
    cloud: Cloud
    id: str
    name: str

    def put(self, method: Method) -> None:
        gateway = self.cloud.gateway
        at = {"restApiId": self.id, "resourceId": self._resource(method.path), "httpMethod": method.verb}
        gateway.put_method(**at, requestParameters=method.request, **method.authorization)
        for status, parameters in method.declared.items():
            gateway.put_method_response(**at, statusCode=status, responseParameters=parameters)
        gateway.put_integration(**at, **method.integration)
        for response in method.responses:
            gateway.put_integration_response(**at, **response)

    def _resource(self, path: str) -> str:
        resources = self.cloud.gateway.get_resources(restApiId=self.id, limit=500)["items"]
        known = {resource["path"]: resource["id"] for resource in resources}
        parent, current = known["/"], ""
        for part in path.strip("/").split("/"):
            current = f"{current}/{part}"
            if current not in known:
                created = self.cloud.gateway.create_resource(
                    restApiId=self.id, parentId=parent, pathPart=part
                )
                known[current] = created["id"]
            parent = known[current]
        return parent

    def deploy(self, **stage: Any) -> None:
        deployment = self.cloud.gateway.create_deployment(restApiId=self.id)["id"]
        at = {"restApiId": self.id, "stageName": "test"}
        if self.cloud.gateway.get_stages(restApiId=self.id)["item"]:
            patch = [{"op": "replace", "path": "/deploymentId", "value": deployment}]
            self.cloud.gateway.update_stage(**at, patchOperations=patch)
        else:
            self.cloud.gateway.create_stage(**at, deploymentId=deployment)
        if stage:
            settings = {
                "destinationArn": "/accessLogSettings/destinationArn",
                "format": "/accessLogSettings/format",
            }
            patch = [
                {"op": "replace", "path": settings[name], "value": value} for name, value in stage.items()
            ]
            self.cloud.gateway.update_stage(**at, patchOperations=patch)

    def call(self, path: str, verb: str = "GET", **request: Any) -> httpx.Response:
        url = f"{self.cloud.state.endpoint}/_aws/execute-api/{self.id}/test{path}"
        return self.cloud.http.request(verb, url, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self.call(path, "POST", **request)
