"""A model in memory: a verified artifact, with its ONNX Runtime session, its handler, or both.

The artifact's `handler.py` may define any of these; they are called from several threads at once:

    load(folder: Path) -> State
    preprocess(inputs: dict[str, ndarray], state) -> dict[str, ndarray]
    postprocess(outputs: dict[str, ndarray], inputs, state) -> dict[str, ndarray]
    infer(inputs: dict[str, ndarray], state) -> dict[str, ndarray]

`preprocess` turns the public inputs into the graph's, `postprocess` the graph's outputs into the public
ones. BYTES are object arrays of `bytes` on the public side; the graph's string tensors are converted either
way. `preprocess` refuses a value by raising `ValueError("what is wrong, for the client")`. `infer` stands
in for the graph of an artifact that has none, and is refused beside one.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_runtime.codecs import Codec, Encoded
from inference_runtime.errors import Problem
from inference_runtime.manifest import Artifact, ArtifactError, Manifest, TensorSpec
from inference_runtime.tensors import DTYPES, Array, fits

if TYPE_CHECKING:
    from inference_runtime.binding import Binding

logger = logging.getLogger(__name__)

Arrays = dict[str, Array]
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

#: By device, in order of preference: what one cannot run, the next does.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
#: A request (in the protocol's JSON) that an artifact may carry, to be warmed up with something real.
SAMPLE = "sample.json"
_NO_GPU = "no usable GPU: this model runs on the CPU"
_GRAPH_DATATYPES = {
    "tensor(bool)": "BOOL", "tensor(string)": "BYTES",
    "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
    "tensor(float16)": "FP16", "tensor(bfloat16)": "BF16", "tensor(float)": "FP32", "tensor(double)": "FP64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Handler:
    """The functions of an artifact's handler.py; `None` where it defines none."""

    state: Any = None
    preprocess: Callable[[Arrays, Any], Arrays] | None = None
    postprocess: Callable[[Arrays, Arrays, Any], Arrays] | None = None
    infer: Callable[[Arrays, Any], Arrays] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """How ONNX Runtime runs a graph. The default suits a function: a machine's share, and one client."""

    #: `cpu`, `cuda` or `tensorrt`; `auto` is CUDA where it is there, and the CPU otherwise.
    device: str = "auto"
    #: That compute one operator; 0 is one for each core that may be used.
    threads: int = 0
    #: They wait for each other's results by spinning, while a request runs and not between: faster on a
    #: machine of one's own, and a waste of a small function's share.
    spinning: bool = False
    #: Where TensorRT keeps the engines that it has built.
    cache: Path | None = None
    #: Which GPU, from 0.
    gpu: int = 0


class Model:
    """Answers inference requests. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, engine: Engine = Engine()) -> None:
        """Load the artifact and answer once.

        Raises:
            ArtifactError: its files do not make a model that answers.
        """
        self.manifest = artifact.manifest
        self._engine = engine
        self.codec = Codec(artifact.manifest)
        self._specs = {spec.name: spec for spec in self.manifest.outputs}
        #: Whether the graph has strings, which ONNX Runtime takes and gives as `str`.
        self._texts = False
        self._handler = _load_handler(artifact)
        self._session: Any = None
        #: Runs what runs beside others, if that is another session.
        self._beside: Any = None
        self._binding: Binding | None = None
        self._run_options: Any = None
        if self.manifest.model is not None:
            self._path = artifact.folder / self.manifest.model
            self._engine = engine = _available(engine)
            self._session = _open_session(self._path, engine)
            if engine.device != "cpu" and self.on_cpu:
                logger.warning(_NO_GPU, extra={"reason": "ONNX Runtime cannot start CUDA"})
            self._check_signature()
        self._warm_up(artifact.folder)
        logger.info(
            "model loaded",
            extra={
                "model": self.manifest.name,
                "version": self.manifest.version,
                "artifact": self.manifest.sha256,
                "execution_providers": self._session.get_providers() if self._session else ["Python"],
            },
        )

    def answer(
        self, body: bytes, headers: Mapping[str, str] = NO_HEADERS, *, limit: int = 0, text_only: bool = False
    ) -> Encoded:
        """The answer to a request's body. Arguments as `Codec.read` takes them.

        Raises:
            Problem: one of the 400s for a bad request; model-error when the model itself fails.
        """
        begun = perf_counter()
        call = self.codec.read(headers, body, limit, text_only=text_only)
        read, answers = perf_counter(), []
        for index, request in enumerate(call.requests):
            try:
                answers.append(self.infer(request.inputs, request.outputs))
            except Problem as problem:
                raise call.located(index, problem) from problem
        computed = perf_counter()
        try:
            encoded = self.codec.write(call, answers)
        except Problem:
            raise
        except Exception as error:
            raise _failure(self.manifest, "the answer cannot be written") from error
        encoded.phases = read - begun, computed - read, perf_counter() - computed
        return encoded

    def infer(self, inputs: Arrays, outputs: Sequence[str], beside: bool = False) -> Arrays:
        """Run the model on public inputs that fit the signature.

        Args:
            beside: others run at the same time (`share`).

        Returns:
            The arrays of `outputs`, in that order, checked against the signature.

        Raises:
            Problem: invalid-data when the handler refuses a value; model-error when anything else fails.
        """
        handler = self._handler
        try:
            feeds = handler.preprocess(inputs, handler.state) if handler.preprocess else inputs
            if self._texts:
                feeds = {name: _to_graph(array) for name, array in feeds.items()}
        except ValueError as error:
            raise Problem("invalid-data", str(error)) from error
        except Exception as error:
            raise _failure(self.manifest, "preprocess failed") from error
        try:
            if handler.infer:
                results = handler.infer(feeds, handler.state)
            else:
                results = self._run_graph(
                    feeds, self._graph_outputs if handler.postprocess else list(outputs), beside
                )
            if handler.postprocess:
                results = handler.postprocess(results, inputs, handler.state)
            return {name: _checked(self._specs[name], results[name]) for name in outputs}
        except Exception as error:
            raise _failure(self.manifest, "inference failed") from error

    def infer_joined(
        self, requests: Sequence[Arrays], outputs: Sequence[str], beside: bool = False
    ) -> Arrays:
        """Run the model once on the rows of several requests that agree on every other axis.

        Takes, returns and raises as `infer` does; the outputs have the rows of all, in order.
        """
        binding = self._binding
        if binding is not None:
            rows = _rows(requests)
            if 0 < rows <= binding.rows:
                try:
                    return binding.run(requests, rows, outputs)
                except Exception as error:
                    raise _failure(self.manifest, "inference failed") from error
        if len(requests) == 1:
            return self.infer(requests[0], outputs, beside)
        joined = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
        return self.infer(joined, outputs, beside)

    def bind(self, rows: int) -> int:
        """Have `infer_joined` run batches that a GPU has captured, from now on, where that can be.

        Returns:
            The rows of the largest, at most `rows`; 0 where there are none: on a CPU, where the shape of a
            row is not known beforehand, where its values are not the graph's own, or where not all of the
            graph runs on the GPU.
        """
        manifest = self.manifest
        specs = (*manifest.inputs, *manifest.outputs)
        if (
            not self.on_gpu
            or self._engine.device == "tensorrt"
            or not self.graph_alone
            or self._texts
            or self._bfloat16
            or any(spec.shape[:1] != (-1,) or -1 in spec.shape[1:] for spec in specs)
            or {spec.name for spec in specs} != self._graph_names
        ):
            return 0
        from inference_runtime import binding

        try:
            session = _open_session(self._path, self._engine, capturing=True)
            self._binding = binding.Binding(
                session, manifest.inputs, manifest.outputs, rows, number=self._engine.gpu
            )
        except Exception as error:
            logger.info("graph not captured", extra={"model": manifest.name, "reason": str(error)})
            return 0
        self._session, self._run_options = session, binding.uncaptured()
        return self._binding.rows

    @property
    def graph_alone(self) -> bool:
        """Whether an answer is the graph's, with no handler before or after it."""
        handler = self._handler
        return handler.preprocess is None and handler.postprocess is None and handler.infer is None

    @property
    def on_cpu(self) -> bool:
        """Whether there is a graph, and no part of it runs on another device."""
        return self._session is not None and self._session.get_providers() == ["CPUExecutionProvider"]

    @property
    def on_gpu(self) -> bool:
        """Whether the graph, or part of it, runs on a GPU."""
        return self._session is not None and "CUDAExecutionProvider" in self._session.get_providers()

    def exchange(self, session: Any) -> Any:
        """Run by this session from now on, one of `reopened`, and return the one before."""
        self._session, before = session, self._session
        return before

    def share(self, session: Any) -> None:
        """Run by this session, one of `reopened`, what is said to run beside others."""
        self._beside = session

    def reopened(self, threads: int, *, awake: bool = False) -> Any:
        """Another session of the graph, with so many threads, which spin between requests too if `awake`.

        That saves waking them, which takes a virtual machine a tenth of a millisecond.
        """
        return _open_session(self._path, replace(self._engine, threads=threads), awake=awake)

    def _run_graph(self, feeds: Arrays, names: list[str], beside: bool) -> Arrays:
        session = self._beside if beside and self._beside is not None else self._session
        if self._bfloat16:
            from inference_runtime.bfloat16 import run

            return run(session, self._bfloat16, feeds, names)
        results = session.run(names, feeds, self._run_options)
        if self._texts:
            results = map(_from_graph, results)
        return dict(zip(names, results, strict=True))

    def _check_signature(self) -> None:
        """Where no handler translates, the graph itself must have the public names and datatypes."""
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self._bfloat16 = frozenset(node.name for node in nodes if node.type == "tensor(bfloat16)")
        self._graph_outputs = [node.name for node in self._session.get_outputs()]
        self._graph_names = {node.name for node in nodes}
        self._texts = any(node.type == "tensor(string)" for node in nodes)
        for translated, specs, nodes in (
            (self._handler.preprocess, self.manifest.inputs, self._session.get_inputs()),
            (self._handler.postprocess, self.manifest.outputs, self._session.get_outputs()),
        ):
            if translated:
                continue
            graph = {node.name: _GRAPH_DATATYPES.get(node.type, node.type) for node in nodes}
            for spec in specs:
                if graph.get(spec.name) != spec.datatype:
                    raise ArtifactError(
                        f"{self.manifest.model}: the signature has {spec.name!r} as {spec.datatype}, "
                        f"the graph has {graph}"
                    )

    def _warm_up(self, folder: Path) -> None:
        """Answer one request: no client then pays for lazy set-up, or meets a model that never answers.

        The request is the artifact's own sample, or else zeros (empty strings for BYTES) of the smallest
        shape, which a handler may refuse as it may any values.
        """
        sample = folder / SAMPLE if SAMPLE in self.manifest.files else None
        try:
            if sample:
                self.answer(sample.read_bytes())
            else:
                zeros = {spec.name: _zeros(spec) for spec in self.manifest.inputs}
                self.infer(zeros, [spec.name for spec in self.manifest.outputs])
        except Problem as problem:
            if sample or problem.slug != "invalid-data":
                raise ArtifactError(
                    f"the model does not answer its warm-up request: {problem.detail}"
                ) from problem


def _load_handler(artifact: Artifact) -> Handler:
    manifest, folder = artifact.manifest, artifact.folder
    if manifest.handler is None:
        return Handler()
    # Compiled from the file itself, never from a cached .pyc that the manifest does not cover, and without
    # writing one into a folder that is read-only on SageMaker.
    module = ModuleType(f"artifact_{manifest.sha256}")
    sys.modules[module.__name__] = module
    try:
        source = (folder / manifest.handler).read_bytes()
        exec(compile(source, manifest.handler, "exec"), module.__dict__)  # noqa: S102
        load: Callable[[Path], Any] | None = getattr(module, "load", None)
        infer = getattr(module, "infer", None)
        if (infer is None) != (manifest.model is not None):
            raise TypeError("it must define infer where the artifact has no graph, and only there")
        return Handler(
            load(folder) if load else None,
            getattr(module, "preprocess", None),
            getattr(module, "postprocess", None),
            infer,
        )
    except Exception as error:
        raise ArtifactError(f"{manifest.handler}: {type(error).__name__}: {error}") from error


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine's."""
    return len(os.sched_getaffinity(0))


def _available(engine: Engine) -> Engine:
    """The engine on a device that this machine has; a log line says what is missing.

    ONNX Runtime falls back by itself, but prints why instead of logging it, and forgets its options.
    """
    import onnxruntime as ort

    built = "CUDAExecutionProvider" in ort.get_available_providers()
    if engine.device == "cpu" or (engine.device == "auto" and not built):
        return replace(engine, device="cpu")
    from inference_runtime import cuda

    if reason := cuda.missing() if built else "ONNX Runtime is built without CUDA":
        logger.warning(_NO_GPU, extra={"reason": reason})
        return replace(engine, device="cpu")
    # The CUDA libraries come from wheels, which are not on the loader's path.
    ort.preload_dlls()
    if engine.device == "tensorrt" and (reason := cuda.missing_tensorrt()):
        logger.warning("no usable TensorRT: this model runs on CUDA", extra={"reason": reason})
        return replace(engine, device="cuda")
    return replace(engine, device="cuda") if engine.device == "auto" else engine


def _open_session(path: Path, engine: Engine, *, capturing: bool = False, awake: bool = False) -> Any:
    # Imported here, as it takes most of a cold start, which a model without a graph does not need.
    import onnxruntime as ort

    ort.set_default_logger_severity(3)  # what it has to say is no JSON
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = engine.threads
    if not engine.threads and (usable := usable_cores()) != os.cpu_count():
        # By itself ONNX Runtime has one for each of the machine's cores.
        options.intra_op_num_threads = usable
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(engine.spinning)))
    options.add_session_config_entry("session.force_spinning_stop", str(int(engine.spinning and not awake)))
    providers = [(name, _provider_options(name, engine, capturing)) for name in PROVIDERS[engine.device]]
    try:
        return ort.InferenceSession(str(path), options, providers)
    except Exception as error:
        raise ArtifactError(f"{path.name}: ONNX Runtime cannot load it: {error}") from error


def _provider_options(provider: str, engine: Engine, capturing: bool) -> dict[str, str]:
    if provider == "CPUExecutionProvider":
        return {}
    options = {"device_id": str(engine.gpu)}
    if provider == "CUDAExecutionProvider":
        # For every new shape the exhaustive search, which is the default, takes up to half a second and finds
        # nothing better (docs/performance.md).
        options["cudnn_conv_algo_search"] = "HEURISTIC"
        if capturing:
            options["enable_cuda_graph"] = "1"
    if provider == "TensorrtExecutionProvider" and engine.cache:
        # Building an engine takes minutes; the next start finds it here.
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engine.cache)}
    return options


def _rows(requests: Sequence[Arrays]) -> int:
    """The rows of several requests together; 0 where a request's inputs disagree about theirs."""
    counts = [{len(array) for array in request.values()} for request in requests]
    return sum([count.pop() for count in counts]) if all(len(count) == 1 for count in counts) else 0


def _failure(manifest: Manifest, what: str) -> Problem:
    """Log the exception being handled, and give the client a problem that tells nothing of it."""
    logger.exception(what, extra={"model": manifest.name, "version": manifest.version})
    return Problem("model-error", "The model could not answer this request")


def _to_graph(array: Array) -> Array:
    """ONNX Runtime takes strings as `str`."""
    if array.dtype != np.object_:
        return array
    return _objects([v.decode() if isinstance(v, bytes) else v for v in array.reshape(-1)], array.shape)


def _from_graph(array: Array) -> Array:
    """ONNX Runtime gives strings as `str`; ours are `bytes`."""
    if array.dtype != np.object_:
        return array
    return _objects([v.encode() for v in array.reshape(-1)], array.shape)


def _objects(values: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape(shape)


def _checked(spec: TensorSpec, array: Array) -> Array:
    if array.dtype != DTYPES[spec.datatype] or not fits(array.shape, spec):
        raise TypeError(
            f"output {spec.name!r} is {array.dtype}{list(array.shape)}, the signature says {spec}"
        )
    return array


def _zeros(spec: TensorSpec) -> Array:
    shape = [max(length, 1) for length in spec.shape]
    return np.full(shape, b"" if spec.datatype == "BYTES" else 0, DTYPES[spec.datatype])
