"""The container's server on this machine, for any ONNX file or artifact: without catalog, AWS or image."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import httpx

from inferctl.environment import ROOT
from inferctl.errors import InferctlError, InputError
from inference_containers.onnx import compilation
from inference_runtime import manifest
from inference_runtime.manifest import Artifact, ArtifactError, Manifest, TensorSpec

#: What `--device` may be.
DEVICES = ("auto", "cpu", "cuda")
#: A request that an artifact carries, and what a bare file's stands in for.
SAMPLE = "sample.json"
#: Where `make compiled` puts the server as the image has it.
COMPILED = ROOT / "build" / "server"
#: ONNX's element types as the protocol's datatypes.
_DATATYPES = {
    "FLOAT": "FP32", "DOUBLE": "FP64", "FLOAT16": "FP16", "BFLOAT16": "BF16", "STRING": "BYTES",
    "BOOL": "BOOL", "INT8": "INT8", "INT16": "INT16", "INT32": "INT32", "INT64": "INT64",
    "UINT8": "UINT8", "UINT16": "UINT16", "UINT32": "UINT32", "UINT64": "UINT64",
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    url: str
    manifest: Manifest
    request: Path
    """A file with a request that the model takes."""
    compiled: bool
    """Whether it runs the modules that the image has; else it runs the sources, which are slower."""

    @property
    def infer_url(self) -> str:
        return f"{self.url}/v2/models/{self.manifest.name}/infer"


@contextmanager
def serving(
    model: Path, *, port: int = 0, device: str = "auto", log: IO[Any] | None = None
) -> Iterator[Served]:
    """Serve `model`, an ONNX file or an artifact's folder, and stop when left.

    Args:
        port: on loopback; 0 takes a free one.
        device: one of DEVICES.
        log: a file for the server's log; standard error by default.

    Raises:
        InputError: `model` is neither, or the port or the device cannot be had.
        InferctlError: the server does not start.
    """
    if device == "cuda":
        _require_cuda()
    with tempfile.TemporaryDirectory(prefix="inferctl-serve-") as scratch:
        artifact = _artifact(model, Path(scratch))
        port = _free(port)
        compiled = compilation.current(COMPILED)
        code = COMPILED if compiled else ROOT
        settings = {
            "MODEL_NAME": artifact.manifest.name,
            "MODEL_SHA256": artifact.manifest.sha256,
            "MODEL_DIR": str(artifact.folder),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "DEVICE": device,
            "PYTHONPATH": str(code),
        }
        process = subprocess.Popen(
            [sys.executable, str(code / "inference_containers" / "onnx" / "serve")],
            env=os.environ | settings,
            stdout=log or sys.stderr,
            stderr=log,
        )
        try:
            served = Served(
                process,
                f"http://127.0.0.1:{port}",
                artifact.manifest,
                _request(artifact, scratch),
                compiled,
            )
            _wait(served)
            yield served
        finally:
            process.terminate()
            process.wait()


def example(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    """A request of zeros, and empty strings, of the smallest shape that a signature takes."""
    inputs = []
    for spec in specs:
        shape = [max(length, 1) for length in spec.shape]
        zero: Any = {"BYTES": "", "BOOL": False}.get(spec.datatype, 0)
        inputs.append(
            {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": [zero] * prod(shape)}
        )
    return {"inputs": inputs}


def _artifact(model: Path, scratch: Path) -> Artifact:
    try:
        if model.is_dir():
            return manifest.verify(model)
        return _of_bare_file(model, scratch / "model")
    except ArtifactError as error:
        raise InputError(f"{model}: {error}") from error


def signature(model: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of an ONNX file, as its graph declares them.

    Raises:
        InputError: it is no ONNX file, or the protocol has no such tensors.
    """
    return _signature(model, _graph(model))


def _signature(model: Path, graph: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_spec(model, value) for value in graph.input if value.name not in weights)
    return inputs, tuple(_spec(model, value) for value in graph.output)


def _graph(model: Path) -> Any:
    import onnx

    try:
        return onnx.load(model, load_external_data=False).graph
    except Exception as error:
        # Whatever protobuf makes of a file that is something else.
        raise InputError(f"{model} is not an ONNX file, nor an artifact's folder: {error}") from error


def _of_bare_file(model: Path, folder: Path) -> Artifact:
    """An artifact of an ONNX file, with the graph's own signature."""
    graph = _graph(model)
    inputs, outputs = _signature(model, graph)
    beside = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    # Many a file is called model.onnx, and its folder says which.
    stem = model.absolute().parent.name if model.stem == "model" else model.stem
    folder.mkdir()
    _link(model, folder / "model.onnx")
    for name in beside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _link(model.parent / name, folder / name)
    manifest.write(
        folder,
        name=re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:63] or "model",
        version="0",
        model="model.onnx",
        handler=None,
        inputs=inputs,
        outputs=outputs,
    )
    return manifest.verify(folder)


def _spec(model: Path, value: Any) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    datatype = _DATATYPES.get(onnx.TensorProto.DataType.Name(kind.elem_type))
    if datatype is None or not kind.HasField("shape"):
        raise InputError(
            f"{model}: {value.name!r} is no tensor of a known rank and datatype, and the protocol has no "
            "others. Export the model with such inputs and outputs (from scikit-learn: with zipmap=False)."
        )
    return TensorSpec(value.name, datatype, tuple(axis.dim_value or -1 for axis in kind.shape.dim))


def _link(source: Path, target: Path) -> None:
    # A model may be larger than the disk has room for twice.
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _request(artifact: Artifact, scratch: str) -> Path:
    if SAMPLE in artifact.manifest.files:
        return artifact.folder / SAMPLE
    path = Path(scratch) / "request.json"
    path.write_text(json.dumps(example(artifact.manifest.inputs)))
    return path


def _require_cuda() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise InputError(
            "This environment's ONNX Runtime has no CUDA: "
            "`uv pip install -r inference_containers/onnx/requirements-cuda.txt`, or use --device cpu."
        )


def _free(port: int) -> int:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"The port {port} cannot be had: {error.strerror}. Choose another --port."
            ) from error
        return int(taken.getsockname()[1])


def _wait(served: Served) -> None:
    """Until the model has answered its warm-up request, however long that takes."""
    with httpx.Client(base_url=served.url, trust_env=False, timeout=5) as client:
        while served.process.poll() is None:
            try:
                if client.get("/ping").status_code == httpx.codes.OK:
                    return
                reason = client.get(f"/v2/models/{served.manifest.name}").json().get("detail", "")
            except httpx.TransportError:
                reason = ""
            if "could not be loaded" in reason:
                raise InferctlError("The model could not be loaded; the server's log says why.")
            time.sleep(0.05)
    raise InferctlError(f"The server ended with status {served.process.returncode}; its log says why.")
