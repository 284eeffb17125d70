"""Which target a model is on is invisible: the same bytes in, the same status, headers and bytes out."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        # A body that is refused unread ends its connection.
        own = {"date", "content-length", "connection"}
        assert reply.headers.keys() - answer["headers"].keys() | {"connection"} == own
        return reply.status, answer["headers"], reply.body

    def ask_as_the_api_does(
        self, body: bytes, content_type: str, accept: str | None
    ) -> tuple[dict[str, str], bytes]:
        """The one answer of both to what API Gateway makes of a client's request: headers and body."""
        headers = {"content-type": content_type} | ({"accept": accept} if accept else {})
        # Its direct integration names the request in the custom attributes, and maps the answer's.
        reply = self._server.request(
            "POST", "/invocations", body, headers | {"x-amzn-sagemaker-custom-attributes": ID}
        )
        event = proxy_event(
            "POST",
            "/v2/models/doubler/infer",
            base64.b64encode(body).decode(),
            isBase64Encoded=True,
            headers=headers,
            requestContext={"requestId": ID},
        )
        answer = self._handler(event, None)
        sent: bytes = answer["body"].encode()
        sent = base64.b64decode(sent) if answer["isBase64Encoded"] else sent
        assert (answer["statusCode"], sent) == (reply.status, reply.body) == (200, sent)
        assert answer["headers"].items() <= reply.headers.items()
        length = reply.headers.get("x-amzn-sagemaker-custom-attributes")
        assert length == answer["headers"].get("inference-header-content-length")
        return answer["headers"], sent


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
        "METRICS_NAMESPACE": "Inference",
    }
    with (
        pytest.MonkeyPatch.context() as environment,
        own_loggers(),
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


VALUES = np.array([[1, 2], [3.5, -4]], np.float32)
HEADER = json.dumps(
    {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}}
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
TRITON = "application/vnd.sagemaker-triton.binary+json"
OCTETS = "application/octet-stream"
NPY = io.BytesIO()
np.save(NPY, VALUES)
FORMS = {
    OCTETS: VALUES.tobytes(),
    "application/x-npy": NPY.getvalue(),
    f"{TRITON};json-header-size={len(HEADER)}": HEADER + VALUES.tobytes(),
    "application/jsonlines": json.dumps(tiny.REQUEST).encode() + b"\n",
    "text/csv": b"1,2\n3.5,-4\n",
}


@pytest.mark.parametrize("accept", [None, "*/*", OCTETS, "application/x-npy", TRITON, "application/json"])
@pytest.mark.parametrize("content_type", FORMS)
def test_every_form_gets_the_same_answer(both: Both, content_type: str, accept: str | None) -> None:
    headers, body = both.ask_as_the_api_does(FORMS[content_type], content_type, accept)
    if "inference-header-content-length" in headers:
        body = body[int(headers["inference-header-content-length"]) :]
        assert headers["content-type"].partition(";")[0] in (OCTETS, TRITON)
    is_octets = headers["content-type"].partition(";")[0] in (OCTETS, TRITON)
    assert not is_octets or body == (VALUES * 2).tobytes()


@settings(max_examples=30)
@given(
    rows=st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 2), min_size=1, max_size=5),
    content_type=st.sampled_from([OCTETS, "application/json"]),
)
def test_any_values_get_the_same_answer(
    both: Both, rows: list[tuple[float, float]], content_type: str
) -> None:
    array = np.array(rows, np.float32) / 4
    finite = np.where(np.isfinite(array), array, 0)
    body = (
        array.tobytes()
        if content_type == OCTETS
        else tiny.body(shape=list(finite.shape), data=finite.tolist())
    )
    _, answer = both.ask_as_the_api_does(body, content_type, OCTETS)
    if content_type == OCTETS:
        np.testing.assert_array_equal(np.frombuffer(answer, np.float32), (array + array).reshape(-1))
