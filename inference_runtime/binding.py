"""A graph on a GPU, captured whole for a few sizes of batch, the buckets, each twice the one before.

To start a graph's kernels one by one takes the CPU longer than they run, and for every new shape the GPU's
libraries look anew for the best way to compute it, which takes up to a second. A captured graph is started as
a whole and looks for nothing; but it reads and writes the same memory each time, so that requests are copied
there, from page-locked memory, and answers from there.

The rows that a batch lacks are what an earlier one has left; no row depends on another, as the warm-up has
checked, and nobody is given theirs.

https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#using-cuda-graphs-preview
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inference_runtime.cuda import PageLocked
from inference_runtime.manifest import TensorSpec
from inference_runtime.tensors import DTYPES, Array

Arrays = dict[str, Array]

#: Of page-locked memory, in bytes, that one model takes at most.
_LOCKED_BYTES = 256 * 1024 * 1024
#: A first run allocates, a second is captured, a third is the first from the capture.
_RUNS = 3


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A captured graph, and the tensors that it reads and writes, by name."""

    binding: Any
    options: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Binding:
    """The captures of one session. Safe to use from several threads, which wait for one another."""

    def __init__(
        self,
        session: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        rows: int,
        device: str = "cuda",
        number: int = 0,
    ) -> None:
        """`session` may capture (`enable_cuda_graph`). `inputs` and `outputs` are all of the graph's; every
        axis but the first has a fixed length.

        Args:
            rows: the largest bucket that is wanted; there may be room for less.
            device: where the session runs, and its `number`.

        Raises:
            Exception: whatever ONNX Runtime says against it.
        """
        self._session, self._device = session, (device, number)
        row = sum(PageLocked.room(_shape(spec, 1), DTYPES[spec.datatype]) for spec in inputs)
        #: The largest bucket.
        self.rows = 1
        while self.rows * 2 <= rows and self.rows * 2 * row <= _LOCKED_BYTES:
            self.rows *= 2
        shapes = {spec.name: (_shape(spec, self.rows), DTYPES[spec.datatype]) for spec in inputs}
        self._block = PageLocked(sum(PageLocked.room(*shape) for shape in shapes.values()))
        self._staged = {name: self._block.array(*shape) for name, shape in shapes.items()}
        self._lock = threading.Lock()
        self._buckets: dict[int, _Bucket] = {}
        for index in range(self.rows.bit_length()):
            self._buckets[1 << index] = self._bucket(inputs, outputs, 1 << index)
            for _ in range(_RUNS):
                self._run(1 << index)

    def run(self, requests: Sequence[Arrays], count: int, names: Sequence[str]) -> Arrays:
        """The outputs of the requests' rows, of which there are `count`, at most `rows`."""
        size = 1 << (count - 1).bit_length()
        with self._lock:
            for name, staged in self._staged.items():
                np.concatenate([request[name] for request in requests], out=staged[:count])
            bucket = self._run(size)
            return {name: bucket.outputs[name].numpy()[:count].copy() for name in names}

    def _run(self, size: int) -> _Bucket:
        bucket = self._buckets[size]
        for name, tensor in bucket.inputs.items():
            tensor.update_inplace(self._staged[name][:size])
        self._session.run_with_iobinding(bucket.binding, bucket.options)
        bucket.binding.synchronize_outputs()
        return bucket

    def _bucket(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], rows: int) -> _Bucket:
        import onnxruntime as ort

        bound, options = self._session.io_binding(), ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(rows))

        def tensors(specs: Sequence[TensorSpec]) -> dict[str, Any]:
            return {
                spec.name: ort.OrtValue.ortvalue_from_shape_and_type(
                    _shape(spec, rows), DTYPES[spec.datatype].type, *self._device
                )
                for spec in specs
            }

        bucket = _Bucket(bound, options, tensors(inputs), tensors(outputs))
        for name, tensor in bucket.inputs.items():
            bound.bind_ortvalue_input(name, tensor)
        for name, tensor in bucket.outputs.items():
            bound.bind_ortvalue_output(name, tensor)
        return bucket


def uncaptured() -> Any:
    """The options of a run of such a session that is no bucket's."""
    import onnxruntime as ort

    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    return (rows, *spec.shape[1:])
