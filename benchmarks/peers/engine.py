"""What every peer's server shares: the ONNX session, and requests as arrays. Runs in the peers' environments.

Environment:
    MODEL     the ONNX file
    PORT      the port, on 127.0.0.1
    INTRA     threads of a session; 0 is ONNX Runtime's own choice, all cores
    WORKERS   processes
    MAXB      the largest batch
    DELAY_MS  how long a batch may wait for more
"""

import os

import numpy as np
import onnxruntime

PORT, WORKERS = int(os.environ["PORT"]), int(os.environ.get("WORKERS", "1"))
MAXB, DELAY_MS = int(os.environ.get("MAXB", "1")), float(os.environ.get("DELAY_MS", "0"))
_DTYPES = {"tensor(double)": "float64", "tensor(float)": "float32", "tensor(float16)": "float16"}


class Engine:
    """A session. Arrays go in and come out by name, with the batch as their first axis."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(os.environ.get("INTRA", "0"))
        self._session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.dtypes = {
            node.name: np.dtype(_DTYPES.get(node.type, node.type[len("tensor(") : -1]))
            for node in self._session.get_inputs()
        }
        self.shapes = {node.name: node.shape for node in self._session.get_inputs()}
        self.output_shapes = {node.name: node.shape for node in self._session.get_outputs()}

    def run(self, arrays):
        return dict(zip(self.output_shapes, self._session.run(None, arrays), strict=True))

    def from_lists(self, lists):
        return {name: np.asarray(lists[name], dtype) for name, dtype in self.dtypes.items()}

    def from_bytes(self, body):
        """A body that is the values of the only input."""
        [(name, dtype)] = self.dtypes.items()
        return {name: np.frombuffer(body, dtype).reshape(-1, *self.shapes[name][1:])}
