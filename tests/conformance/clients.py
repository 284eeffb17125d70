"""Others' clients, against a server or the platform. Runs in an environment of its own (`make conformance`).

    python clients.py '{"url": …, "model": …, "token": …, "ca": …, "inputs": […]}'

`inputs` are lists of name, datatype, shape and values, BYTES as base64. `url` is the server's address without
a scheme; `token` and `ca` are given where it is the platform. Prints, for each way to ask, the outputs as
`[name, shape, values]`, or the status of the refusal.
"""

import asyncio
import base64
import json
import sys
from typing import Any

import httpx
import kserve
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

TRITON = "application/vnd.sagemaker-triton.binary+json"
#: Neither library writes these in JSON.
HALVES = ("FP16", "BF16")


class Headers(triton.InferenceServerClientPlugin, httpx.Auth):
    """What the platform's API needs beyond the protocol, for either client: a token, and the form's own name.

    API Gateway tells text from bytes by Content-Type and Accept, and SageMaker passes no header that says how
    long a request's JSON is.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: Any) -> None:
        self.add(request.headers)

    def auth_flow(self, request: httpx.Request) -> Any:
        self.add(request.headers)
        yield request

    def add(self, headers: Any) -> None:
        headers["Authorization"] = f"Bearer {self.token}"
        length = headers.get("Inference-Header-Content-Length")
        if length is not None:
            headers["Content-Type"] = f"{TRITON};json-header-size={length}"
        headers["Accept"] = TRITON


class Triton:
    """tritonclient, which keeps its own names for everything."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.model, self.inputs = settings["model"], settings["inputs"]
        options = {}
        if settings["token"]:
            options = {"ssl": True, "ssl_options": {"ca_certs": settings["ca"]}}
        self.client = triton.InferenceServerClient(settings["url"], **options)
        if settings["token"]:
            self.client.register_plugin(Headers(settings["token"]))

    def ask(self, *, binary_in: bool, outputs: list[Any] | None, **options: Any) -> Any:
        inputs = []
        for name, datatype, shape, values in self.inputs:
            tensor = triton.InferInput(name, shape, datatype)
            array = np.array(values, triton_to_np_dtype(datatype)).reshape(shape)
            tensor.set_data_from_numpy(array, binary_data=binary_in or datatype in HALVES)
            inputs.append(tensor)
        result = self.client.infer(self.model, inputs, outputs=outputs, request_id="7", **options)
        response = result.get_response()
        assert response["id"] == "7"
        return [plain(output["name"], result.as_numpy(output["name"])) for output in response["outputs"]]

    def refused(self) -> int:
        name, datatype, shape, _ = self.inputs[0]
        other = "FP64" if datatype != "FP64" else "INT8"
        tensor = triton.InferInput(name, shape, other)
        tensor.set_data_from_numpy(np.zeros(shape, triton_to_np_dtype(other)))
        try:
            self.client.infer(self.model, [tensor])
        except InferenceServerException as error:
            return int(error.status())
        raise AssertionError("not refused")

    def results(self) -> dict[str, Any]:
        client, names = self.client, [output["name"] for output in self.metadata()["outputs"]]
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(self.model)
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        found = {}
        for binary_in in (False, True):
            for compression in (None, "gzip", "deflate"):
                for binary_out in (None, False, True):
                    outputs = (
                        binary_out
                        if binary_out is None
                        else [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
                    )
                    found[f"triton {binary_in} {compression} {binary_out}"] = self.ask(
                        binary_in=binary_in,
                        outputs=outputs,
                        request_compression_algorithm=compression,
                        response_compression_algorithm=compression,
                    )
        return found | {"triton refused": self.refused()}

    def metadata(self) -> Any:
        metadata = self.client.get_model_metadata(self.model)
        assert metadata["name"] == self.model
        return metadata


async def kserve_results(settings: dict[str, Any]) -> dict[str, Any]:
    options = {}
    if settings["token"]:
        options = {"verify": settings["ca"], "auth": Headers(settings["token"])}
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", **options))
    address = f"{'https' if settings['token'] else 'http'}://{settings['url']}"
    assert await client.is_server_live(address)
    assert await client.is_server_ready(address)
    assert await client.is_model_ready(address, settings["model"])
    found: dict[str, Any] = {}
    for binary_in in (False, True):
        for binary_out in (False, True):
            inputs = []
            for name, datatype, shape, values in settings["inputs"]:
                tensor = kserve.InferInput(name, shape, datatype)
                array = np.array(values, triton_to_np_dtype(datatype)).reshape(shape)
                tensor.set_data_from_numpy(array, binary_data=binary_in or datatype in HALVES)
                inputs.append(tensor)
            parameters = {"binary_data_output": True} if binary_out else None
            request = kserve.InferRequest(settings["model"], inputs, request_id="7", parameters=parameters)
            answer = await client.infer(address, request, model_name=settings["model"])
            assert answer.id == "7"
            found[f"kserve {binary_in} {binary_out}"] = [
                plain(output.name, output.as_numpy()) for output in answer.outputs
            ]
    try:
        empty = kserve.InferRequest(settings["model"], [])
        await client.infer(address, empty, model_name=settings["model"])
    except httpx.HTTPStatusError as error:
        found["kserve refused"] = error.response.status_code
    return found


def plain(name: str, array: Any) -> list[Any]:
    values = array.reshape(-1).tolist()
    return [
        name,
        list(array.shape),
        [text(value) if isinstance(value, bytes | str) else value for value in values],
    ]


def text(value: bytes | str) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()


def main() -> None:
    settings = json.loads(sys.argv[1])
    settings["inputs"] = [
        [name, datatype, shape, [base64.b64decode(v) for v in values] if datatype == "BYTES" else values]
        for name, datatype, shape, values in settings["inputs"]
    ]
    results = Triton(settings).results()
    if all(datatype != "BF16" for _, datatype, _, _ in settings["inputs"]):
        # KServe's client has no BF16.
        results |= asyncio.run(kserve_results(settings))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
