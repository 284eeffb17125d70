"""What NVIDIA's CUDA runtime is asked for directly: how many GPUs there are, and page-locked memory.

From ordinary memory a GPU reads only through a buffer of the driver's; from page-locked memory it copies by
itself, two to three times as fast. The library is the one that ONNX Runtime has loaded.

https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__MEMORY.html
"""

import ctypes
import logging
import mmap
import re
import weakref
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from inference_runtime.tensors import Array

logger = logging.getLogger(__name__)

_ALIGNMENT = 4096
#: What ONNX Runtime's provider is linked with.
_TENSORRT = ("libnvinfer.so.10", "libnvonnxparser.so.10")
#: Memory that every context of the process may use.
_PORTABLE = 1


def devices() -> int:
    """GPUs that this process may use."""
    library, count = _library(), ctypes.c_int(0)
    if library is None or library.cudaGetDeviceCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def missing() -> str:
    """Why there is no GPU, as the driver says; empty where there is one.

    ONNX Runtime, asked for CUDA without it, loads gigabytes of libraries and complains past the log.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return str(error)
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return f"the driver's error {code}"
    return "" if count.value else "the driver has none"


def missing_tensorrt() -> str:
    """Why ONNX Runtime cannot load TensorRT, as the loader says; empty where it can."""
    try:
        for name in _TENSORRT:
            ctypes.CDLL(name)
    except OSError as error:
        return str(error)
    return ""


class PageLocked:
    """One block of page-locked memory, to be cut into arrays that must not outlive it.

    Where the memory cannot be locked, as its amount is limited, it is ordinary memory, and slower.
    """

    def __init__(self, size: int) -> None:
        """`size` is in bytes, as `room` counts them."""
        self._block = mmap.mmap(-1, max(size, 1))
        self._taken = 0
        library = _library()
        if library is None:
            return
        address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._block)))
        error = library.cudaHostRegister(address, ctypes.c_size_t(len(self._block)), _PORTABLE)
        if error:
            library.cudaGetLastError()  # which is kept until somebody asks, and would be the next call's
            logger.warning("memory not page-locked", extra={"bytes": size, "cuda_error": error})
        else:
            weakref.finalize(self, _unlock, library, address, self._block)

    @staticmethod
    def room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """Bytes that an array takes of a block."""
        return -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The next array of the block, of zeros."""
        array: Array = np.ndarray(shape, dtype, self._block, self._taken)
        self._taken += self.room(shape, dtype)
        return array


def _unlock(library: Any, address: ctypes.c_void_p, block: mmap.mmap) -> None:
    """`block` is named so that its memory is still there."""
    library.cudaHostUnregister(address)


@cache
def _library() -> Any:
    """The CUDA runtime that is loaded, whatever its version; None where there is none."""
    try:
        maps = Path("/proc/self/maps").read_text()
        found = re.search(r"\S*/libcudart\.so\S*", maps)
        return ctypes.CDLL(found[0]) if found else None
    except OSError:
        return None
