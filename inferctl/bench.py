"""What `inferctl bench` sends where: the request that a target is measured with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson

from catalog import load_catalog
from inferctl import environment, serving
from inferctl.environment import ROOT
from inferctl.errors import InputError, UnreachableError
from inferctl.load import Request
from inference_runtime.manifest import TensorSpec

_JSON = {"content-type": "application/json"}


@contextmanager
def target(what: str, env: str, device: str, body: bytes | None) -> Iterator[Request]:
    """The request for `what`: the URL of a server or model, an ONNX file or artifact, or a deployed model.

    A file is served on this machine meanwhile. Without a `body` the model's own sample is sent, or zeros.

    Raises:
        InputError: `what` is none of these.
        UnreachableError: nothing answers there.
        InferctlError: the request is not answered; there is nothing to measure.
    """
    if urlsplit(what).scheme in ("http", "https"):
        yield _answered(_at_url(what, body))
    elif Path(what).exists():
        with (
            Path("/dev/null").open("w") as nowhere,
            serving.serving(Path(what), device=device, log=nowhere) as served,
        ):
            yield _answered(Request(served.infer_url, _JSON, body or served.request.read_bytes()))
    elif what in {spec.name for spec in load_catalog(ROOT / "models")}:
        yield _answered(_deployed(what, env, body))
    else:
        raise InputError(f"{what!r} is no URL, no ONNX file or artifact here, and no model of the catalog.")


def _at_url(url: str, body: bytes | None) -> Request:
    """The model at `url`; of a server's address alone, its only model."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        try:
            if not urlsplit(url).path.strip("/"):
                url = url.rstrip("/")
                served = client.post(f"{url}/v2/repository/index").raise_for_status().json()
                if len(served) != 1:
                    names = ", ".join(each["name"] for each in served)
                    raise InputError(f"{url} serves {names or 'nothing'}: give {url}/v2/models/<name>.")
                url = f"{url}/v2/models/{served[0]['name']}"
            model = url.removesuffix("/infer")
            if body is None:
                inputs = client.get(model).raise_for_status().json()["inputs"]
                specs = tuple(TensorSpec(i["name"], i["datatype"], tuple(i["shape"])) for i in inputs)
                body = orjson.dumps(serving.example(specs))
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise UnreachableError(
                f"{url} is no Open Inference Protocol server that answers: {error}"
            ) from error
    return Request(f"{model}/infer", _JSON, body)


def _deployed(model: str, env: str, body: bytes | None) -> Request:
    deployed = environment.find(env)
    headers = _JSON | {"authorization": f"Bearer {deployed.tokens(model=model)()}"}
    sample = ROOT / "models" / model / serving.SAMPLE
    url = f"{deployed.api_url}/v2/models/{model}/infer"
    return Request(url, headers, body or sample.read_bytes(), deployed.verify)


def _answered(request: Request) -> Request:
    """`request`, which has been answered once."""
    with httpx.Client(trust_env=False, verify=request.verify, timeout=60) as client:
        try:
            answer = client.post(request.url, content=request.body, headers=dict(request.headers))
        except httpx.HTTPError as error:
            raise UnreachableError(f"{request.url} does not answer: {error}.") from error
    if answer.is_error:
        raise InputError(f"The request is answered {answer.status_code}: {answer.text[:500]}")
    return request
