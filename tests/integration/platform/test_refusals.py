"""Bad requests get the right status and the one error shape, the same from CPU and GPU models, over HTTP."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.integration.platform.conftest import Platform

INPUTS = {"file-type": "content", "text-embedding": "text"}
MODELS = tuple(INPUTS)
TYPE = "urn:inference-platform:problem:"


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document, after what holds for every one of them."""
    assert answer.headers["content-type"].split(";")[0] == "application/problem+json", answer.text
    document: dict[str, Any] = answer.json()
    assert list(document) == ["type", "title", "status", "detail", "request_id"]
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["type"].startswith(TYPE)
    for internal in ("arn:", "000000000000", "Traceback", "amazonaws", "/opt/", "/tmp/", "onnx", "lambda"):
        assert internal not in answer.text, internal
    return document


def tensor(**changes: Any) -> Callable[[str], bytes]:
    def body(model: str) -> bytes:
        one = {"name": INPUTS[model], "datatype": "BYTES", "shape": [1], "data": ["x"]} | changes
        return json.dumps({"inputs": [one]}).encode()

    return body


def raw(content: bytes) -> Callable[[str], bytes]:
    return lambda model: content


CASES: dict[str, tuple[Callable[[str], bytes], int, str]] = {
    "truncated": (raw(b'{"inputs": [{"name": "te'), 400, "invalid-json"),
    "not json": (raw(b"\x00\xff\xfe"), 400, "invalid-json"),
    "empty": (raw(b" "), 400, "invalid-json"),
    "not an object": (raw(b"[1]"), 400, "invalid-request"),
    "no inputs": (raw(b"{}"), 400, "invalid-request"),
    "inputs missing": (raw(b'{"inputs": []}'), 400, "missing-input"),
    "wrong name": (tensor(name="nope"), 400, "unknown-input"),
    "wrong datatype": (tensor(datatype="FP32", data=[1.0]), 400, "invalid-datatype"),
    "unknown datatype": (tensor(datatype="STRING"), 400, "invalid-datatype"),
    "shape and data disagree": (tensor(shape=[2]), 400, "invalid-data"),
    "wrong rank": (tensor(shape=[1, 1]), 400, "invalid-shape"),
    "negative length": (tensor(shape=[-1]), 400, "invalid-shape"),
    "huge shape": (tensor(shape=[2**62]), 400, "invalid-data"),
    "wrong element": (tensor(data=[7]), 400, "invalid-data"),
    "broken base64": (tensor(data=["%%%"], parameters={"content_type": "base64"}), 400, "invalid-data"),
    "over the limit": (raw(b" " * (4 * 1024 * 1024 + 1)), 413, "payload-too-large"),
    "over the gateway's limit": (raw(b" " * (10 * 1024 * 1024 + 1)), 413, "payload-too-large"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_refused_alike_by_both_targets(platform: Platform, case: str) -> None:
    body, status, slug = CASES[case]
    documents = {}
    for model in MODELS:
        answer = platform.infer(model, body(model))
        documents[model] = problem(answer)
        assert (answer.status_code, documents[model]["type"]) == (status, TYPE + slug), documents[model]
    cpu, gpu = (documents[model] for model in MODELS)
    same = cpu["detail"].replace("content", "text") == gpu["detail"]
    assert cpu["title"] == gpu["title"]
    assert same, (cpu["detail"], gpu["detail"])


@pytest.mark.parametrize("model", MODELS)
def test_a_media_type_that_is_no_form_of_a_request_is_refused(platform: Platform, model: str) -> None:
    answer = platform.infer(model, b"<x/>", media_type="application/xml")
    assert (answer.status_code, problem(answer)["type"]) == (415, TYPE + "unsupported-media-type")


@pytest.mark.parametrize("model", MODELS)
def test_a_body_without_a_media_type_is_json(platform: Platform, model: str) -> None:
    assert platform.infer(model, tensor()(model), media_type=None).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/models/no-such-model/infer"),
        ("GET", "/v2/models/no-such-model"),
        ("GET", "/nothing"),
        ("DELETE", "/v2/models/file-type"),
        ("GET", "/v2/models/text-embedding/infer"),
    ],
)
def test_an_unknown_model_or_route_is_404(platform: Platform, method: str, path: str) -> None:
    answer = platform.call(method, path)
    assert (answer.status_code, problem(answer)["type"]) == (404, TYPE + "not-found")


def expired(platform: Platform) -> str:
    """A token that the pool itself could have issued an hour ago, signed with the pool's own key."""
    pool = platform.deployed.user_pool_id
    (path,) = platform.home.glob(f"**/{pool}-access.pem")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    header, claims, _ = platform.token().split(".")
    document = json.loads(base64.urlsafe_b64decode(claims + "=="))
    document |= {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{header}.{encode(json.dumps(document).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


TOKENS: dict[str, Callable[[Platform], str | None]] = {
    "missing": lambda platform: None,
    "garbage": lambda platform: "a.b.c",
    "expired": expired,
    "tampered": lambda platform: platform.token()[:-6] + "AAAAAA",
    "wrong scope": lambda platform: platform.token("operator"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_does_not_allow_the_call_is_401(platform: Platform, model: str, kind: str) -> None:
    answer = platform.infer(model, tensor()(model), token=TOKENS[kind](platform))
    assert (answer.status_code, problem(answer)["type"]) == (401, TYPE + "unauthorized")


def test_an_expired_token_differs_from_a_good_one_in_its_age_only(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert platform.infer("file-type", tensor()("file-type"), token=expired(platform)).status_code == 200
