"""Triton's python backend. There is no ONNX Runtime backend for a CPU outside NVIDIA's images."""

import os
import sys

import numpy as np
import triton_python_backend_utils as backend

sys.path.insert(0, os.environ["PEERS"])
from engine import Engine


class TritonPythonModel:
    def initialize(self, args):
        self._engine = Engine()

    def execute(self, requests):
        arrays = [
            {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self._engine.dtypes}
            for request in requests
        ]
        together = {name: np.concatenate([each[name] for each in arrays]) for name in self._engine.dtypes}
        answer, responses, row = self._engine.run(together), [], 0
        for each in arrays:
            end = row + len(next(iter(each.values())))
            tensors = [backend.Tensor(name, array[row:end]) for name, array in answer.items()]
            responses.append(backend.InferenceResponse(tensors))
            row = end
        return responses
