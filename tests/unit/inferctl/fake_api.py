"""A platform's API and token endpoint, as far as its clients can tell."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

Answer = tuple[int, dict[str, Any], dict[str, str]]


@dataclass
class Request:
    """A request that the API received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """A platform's API and token endpoint; `answers` are what a path answers instead, the last for ever."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)  # client id -> secret, scopes

    def answer(self, request: Request) -> Answer:
        scripted = self.answers.get(request.path)
        if scripted:
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        if request.path == "/oauth2/token":
            return self._token(request)
        scopes = request.headers.get("authorization", "").removeprefix("Bearer token-for:")
        if not scopes:
            return problem(401, "unauthorized")
        if "invoke" not in scopes.split():
            return problem(403, "forbidden")
        if request.path == "/dev/v2/models":
            return 200, {"models": [{"name": "file-type", "target": "cpu", "artifact_sha256": "ab" * 32}]}, {}
        if request.path.startswith("/dev/v2/models/text-embedding"):
            return self._model("text-embedding", "text", request)
        if request.path.startswith("/dev/v2/models/file-type"):
            return self._model("file-type", "content", request)
        return problem(404, "not-found")

    def _token(self, request: Request) -> Answer:
        given = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        client_id, _, secret = given.partition(":")
        known, scopes = self.secrets.get(client_id, ("", ""))
        if secret != known:
            return 400, {"error": "invalid_client"}, {}
        return 200, {"access_token": f"token-for:{scopes}", "expires_in": 3600, "token_type": "Bearer"}, {}

    def _model(self, name: str, tensor: str, request: Request) -> Answer:
        if request.method == "GET":
            return 200, {"name": name, "inputs": [{"name": tensor, "datatype": "BYTES", "shape": [-1]}]}, {}
        count = len(request.json["inputs"][0]["data"])
        output = {"name": "label", "datatype": "BYTES", "shape": [count], "data": ["txt"] * count}
        return 200, {"model_name": name, "model_version": "1.0.0", "outputs": [output]}, {}


def problem(status: int, slug: str, **headers: str) -> Answer:
    document = {
        "type": f"urn:inference-platform:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": f"It is {slug}.",
        "request_id": "req-1",
    }
    return status, document, {"Content-Type": "application/problem+json", "x-request-id": "req-1", **headers}
