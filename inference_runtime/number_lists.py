"""JSON lists of numbers, straight into arrays.

Other parsers make an object of each number, and the array of these. simdjson reads all of them into one
buffer, which a list of some length is worth (docs/performance.md). What it refuses is no error here: whoever
reads the document as a whole says what is wrong with it.
"""

import threading
from typing import Any, Literal

import numpy as np
import simdjson

from inference_runtime.tensors import Array

#: A parser is kept, with the memory that it took, unless a text was longer.
_KEPT_BYTES = 256 * 1024
#: simdjson's name of the widest type of each kind of dtype.
_WIDEST: dict[str, tuple[Literal["d", "i", "u"], np.dtype[Any]]] = {
    "f": ("d", np.dtype(np.float64)),
    "i": ("i", np.dtype(np.int64)),
    "u": ("u", np.dtype(np.uint64)),
}


class _Kept(threading.local):
    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_kept = _Kept()


def array(text: bytes, dtype: np.dtype[Any], count: int) -> Array | None:
    """The numbers of a flat JSON list, as `inference_runtime.tensors` reads them.

    Args:
        text: the list, from its bracket on.
        dtype: of floating point, or whole numbers.
        count: how many they must be.

    Returns:
        A read-only array of the shape [count]; None if this is no such list, or a number is not the dtype's.
    """
    # Lists in it would be read as if they were not there.
    if text.rfind(b"[") != 0:
        return None
    kind, widest = _WIDEST[dtype.kind]
    parser = _kept.parser if len(text) <= _KEPT_BYTES else simdjson.Parser()
    try:
        # It begins with a bracket, so that it is a list.
        found: Any = parser.parse(text)
        values: Array = np.frombuffer(found.as_buffer(of_type=kind), widest)
    except (TypeError, ValueError, RuntimeError):
        return None
    if len(values) != count:
        return None
    if dtype != widest:
        wide = values
        with np.errstate(over="ignore", invalid="ignore"):
            values = wide.astype(dtype)
            # A number that was too large is infinite, and so is the sum with it, which others' may be too.
            if not (np.isfinite(values.sum()) if kind == "d" else np.array_equal(values, wide)):
                return None
    values.flags.writeable = False
    return values
