"""Graphs with tensors of BF16. numpy has none, so values of ONNX Runtime carry them, in and out, as bits."""

import ctypes
from collections.abc import Collection, Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime as ort

from inference_runtime.tensors import Array, from_bfloat16, to_bfloat16

#: ONNX's `TensorProto.BFLOAT16`.
_ONNX_TYPE = 16


def run(
    session: Any, names: Collection[str], feeds: dict[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """The graph's `outputs`, where the tensors in `names` are BF16 in it and float32 here.

    ONNX Runtime makes no such values of text, so the graph may take none.
    """
    values = {
        name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(to_bfloat16(array), _ONNX_TYPE)
        if name in names
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feeds.items()
    }
    found = zip(outputs, session.run_with_ort_values(list(outputs), values), strict=True)
    return {name: _float32(value) if name in names else value.numpy() for name, value in found}


def _float32(value: Any) -> Array:
    shape = value.shape()
    if not prod(shape):
        return np.empty(shape, np.float32)
    memory = (ctypes.c_uint16 * prod(shape)).from_address(value.data_ptr())
    return from_bfloat16(np.frombuffer(memory, np.uint16)).reshape(shape)
