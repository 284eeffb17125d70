"""Open Inference Protocol v2 documents (https://github.com/kserve/open-inference-protocol), JSON form.

Members beyond those read here, which the protocol's extensions and clients add, are ignored.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from inference_runtime import tensors
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import Manifest, TensorSpec
from inference_runtime.tensors import Array


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asked: every input of the signature, and the outputs to answer, in order."""

    id: str | None
    inputs: dict[str, Array]
    outputs: tuple[str, ...]


def read_request(body: bytes, manifest: Manifest) -> InferRequest:
    """Parse and check an inference request against the model's signature.

    Raises:
        Problem: any of the 400s, naming the field.
    """
    document = _parse(body)
    if "id" in document and not isinstance(document["id"], str):
        raise Problem("invalid-request", f"id is {shown(document['id'])}; it must be a string")
    _check_parameters("parameters", document)
    return InferRequest(
        document.get("id"),
        _read_inputs(document.get("inputs"), manifest.inputs),
        _read_outputs(document.get("outputs"), manifest.outputs),
    )


def write_response(manifest: Manifest, request_id: str | None, outputs: dict[str, Array]) -> bytes:
    """The answer to a request: `outputs` in the order given, `id` as the client sent it, or absent."""
    datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
    document: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request_id is not None:
        document["id"] = request_id
    document["outputs"] = [tensors.encode(name, datatypes[name], array) for name, array in outputs.items()]
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def model_metadata(manifest: Manifest) -> bytes:
    """`GET /v2/models/<model>`: the signature, and which artifact this is."""
    return orjson.dumps(
        {
            "name": manifest.name,
            "versions": [manifest.version],
            "platform": manifest.platform,
            "inputs": [_tensor_metadata(spec) for spec in manifest.inputs],
            "outputs": [_tensor_metadata(spec) for spec in manifest.outputs],
            "parameters": {"artifact_sha256": manifest.sha256},
        }
    )


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise Problem("invalid-json", "The body is empty; send an inference request as a JSON object")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("invalid-json", f"Line {error.lineno}, column {error.colno}: {error.msg}") from None
    if not isinstance(document, dict):
        raise Problem("invalid-request", "The body is not a JSON object with `inputs`")
    return document


def _read_inputs(documents: object, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    if not isinstance(documents, list):
        raise Problem("invalid-request", "inputs is missing or not a list of tensors")
    by_name = {spec.name: spec for spec in specs}
    inputs: dict[str, Array] = {}
    for index, document in enumerate(documents):
        name = _name(f"inputs[{index}]", document)
        if name not in by_name:
            raise Problem(
                "unknown-input", f"inputs[{index}] is named {shown(name)}; the model takes {list(by_name)}"
            )
        if name in inputs:
            raise Problem("invalid-request", f"inputs[{index}]: {name!r} appears twice")
        _check_parameters(f"inputs[{index}].parameters", document)
        inputs[name] = tensors.decode(document, by_name[name])
    missing = [name for name in by_name if name not in inputs]
    if missing:
        raise Problem("missing-input", f"inputs lack {missing}; the model takes {list(by_name)}")
    return inputs


def _read_outputs(documents: object, specs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """The outputs asked for; all of them where the client names none."""
    known = [spec.name for spec in specs]
    if documents is None or documents == []:
        return tuple(known)
    if not isinstance(documents, list):
        raise Problem("invalid-request", "outputs is not a list")
    names: list[str] = []
    for index, document in enumerate(documents):
        name = _name(f"outputs[{index}]", document)
        if name not in known:
            raise Problem(
                "unknown-output", f"outputs[{index}] is named {shown(name)}; the model gives {known}"
            )
        if name in names:
            raise Problem("invalid-request", f"outputs[{index}]: {name!r} appears twice")
        names.append(name)
    return tuple(names)


def _name(where: str, document: object) -> str:
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise Problem("invalid-request", f"{where} is not an object with a `name`")
    name: str = document["name"]
    return name


def _check_parameters(where: str, document: dict[str, Any]) -> None:
    if not isinstance(document.get("parameters", {}), dict):
        raise Problem("invalid-request", f"{where} is not an object")


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
