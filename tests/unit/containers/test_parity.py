"""Which target a model is on is invisible: the same bytes in, the same status, headers and bytes out."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.containers.process import Server, serving
from tests.unit.lambdas.function import imported, own_loggers, proxy_event
from tests.unit.runtime import tiny

HANDLER = """
def preprocess(inputs, state):
    if (inputs["x"] == 13).any():
        raise ValueError("input 'x': 13 is not allowed")
    if (inputs["x"] == 500).any():
        raise RuntimeError("broken")
    return inputs
"""
X = tiny.REQUEST["inputs"][0]
LIMIT = 10_000
ID = "parity-1"

REQUESTS: dict[str, bytes] = {
    "flat": json.dumps(tiny.REQUEST).encode(),
    "nested": tiny.body(data=[[1, 2], [3.5, -4]]),
    "selected output": json.dumps(tiny.REQUEST | {"outputs": [{"name": "y"}]}).encode(),
    "infinite answer": tiny.body(data=[3e38, -3e38, 1e-45, 0]),
    "unicode id": json.dumps(tiny.REQUEST | {"id": "naïve ☃"}, ensure_ascii=False).encode(),
    "empty": b"",
    "truncated": json.dumps(tiny.REQUEST).encode()[:-9],
    "not an object": b"[1, 2]",
    "nan": tiny.body().replace(b"3.5", b"NaN"),
    "no inputs": b"{}",
    "missing input": b'{"inputs":[]}',
    "unknown input": tiny.body(name="z"),
    "twice": json.dumps({"inputs": [X, X]}).encode(),
    "wrong datatype": tiny.body(datatype="INT64"),
    "wrong shape": tiny.body(shape=[4]),
    "empty batch": tiny.body(shape=[0, 2], data=[]),
    "too few values": tiny.body(data=[1]),
    "a boolean": tiny.body(data=[1, 2, 3, True]),
    "unknown output": json.dumps(tiny.REQUEST | {"outputs": [{"name": "z"}]}).encode(),
    "refused by the handler": tiny.body(data=[13, 0, 0, 0]),
    "failing model": tiny.body(data=[500, 0, 0, 0]),
    "at the limit": tiny.body().ljust(LIMIT),
    "over the limit": tiny.body().ljust(LIMIT + 1),
}


class Both:
    """One artifact on both targets."""

    def __init__(self, server: Server, handler: Any) -> None:
        self._server = server
        self._handler = handler

    def ask(
        self, method: str, path: str, body: bytes = b"", content_type: str = "application/json"
    ) -> tuple[int, dict[str, str], bytes]:
        """The one answer of both."""
        headers = {"content-type": content_type, "x-request-id": ID}
        reply = self._server.request(method, path, body, headers)
        event = proxy_event(
            method,
            path,
            body.decode(),
            headers={"Content-Type": content_type},
            requestContext={"requestId": ID},
        )
        answer = self._handler(event, None)
        assert (answer["statusCode"], answer["body"].encode()) == (reply.status, reply.body)
        assert answer["headers"].items() <= reply.headers.items()
        assert reply.headers.keys() - answer["headers"].keys() == {"date", "content-length"}
        return reply.status, answer["headers"], reply.body


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("parity")
    artifact = tiny.doubler(folder / "model", handler=HANDLER)
    sha256 = artifact.manifest.sha256
    # The Lambda finds the artifact in its cache, where a first start has left it.
    (folder / "cache").mkdir()
    (folder / "cache" / sha256).symlink_to(artifact.folder)
    settings = {
        "MODEL_NAME": "doubler",
        "MODEL_SHA256": sha256,
        "MODEL_URI": f"s3://models/doubler/{sha256}/",
        "ARTIFACT_CACHE": str(folder / "cache"),
        "MAX_BODY_BYTES": str(LIMIT),
        "POWERTOOLS_SERVICE_NAME": "doubler",
    }
    with (
        pytest.MonkeyPatch.context() as environment,
        own_loggers("doubler"),
        serving(artifact.folder, sha256, folder / "log", MAX_BODY_BYTES=str(LIMIT)) as server,
    ):
        for name, value in settings.items():
            environment.setenv(name, value)
        handler = imported("inference").handler
        server.wait_until_ready()
        yield Both(server, handler)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_body_gets_the_same_answer(both: Both, name: str) -> None:
    status, headers, body = both.ask("POST", "/v2/models/doubler/infer", REQUESTS[name])
    assert headers["x-request-id"] == ID
    if status != 200:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["request_id"] == ID


def test_the_requests_cover_what_can_happen(both: Both) -> None:
    statuses = {both.ask("POST", "/v2/models/doubler/infer", body)[0] for body in REQUESTS.values()}
    assert statuses == {200, 400, 413, 500}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/doubler", 200),
        ("GET", "/v2/models/doubler/ready", 200),
        ("GET", "/v2/models/doubler/infer", 405),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_every_other_route_too(both: Both, method: str, path: str, status: int) -> None:
    assert both.ask(method, path)[0] == status


def test_media_types_too(both: Both) -> None:
    assert both.ask("POST", "/v2/models/doubler/infer", tiny.body(), "text/plain")[0] == 415
