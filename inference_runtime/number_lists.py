"""JSON lists of numbers, straight into arrays.

Other parsers make an object of each number, and the array of these. simdjson reads all of them into one
buffer, which a list of some length is worth (docs/decisions/0030). What it refuses is no error here: whoever
reads the document as a whole says what is wrong with it.
"""

import threading
from typing import Any

import numpy as np
import simdjson

from inference_runtime.tensors import Array

#: A parser is kept, with the memory that it took, unless a text was longer.
_KEPT_BYTES = 256 * 1024
#: The widest type of each kind of dtype, and what simdjson calls it.
_WIDEST = {"f": (np.dtype("float64"), "d"), "i": (np.dtype("int64"), "i"), "u": (np.dtype("uint64"), "u")}


class _Kept(threading.local):
    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_kept = _Kept()


class NumberList:
    """Reads flat lists of `count` numbers as `inference_runtime.tensors` does. Safe to use from threads."""

    def __init__(self, dtype: np.dtype[Any], count: int) -> None:
        """`dtype` is of floating point, or of whole numbers."""
        self._dtype, self._count = dtype, count
        self._widest, self._type = _WIDEST[dtype.kind]
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        self._narrow = dtype != self._widest
        self._least, self._most = limits.min, limits.max
        self._square = float(limits.max) ** 2 if self._narrow else 0.0

    def array(self, text: bytes) -> Array | None:
        """The numbers, as a read-only array of the shape [count].

        None where the text is no such list from its first byte on, or has a number that is not the dtype's.
        """
        # Lists in it would be read as if they were not there.
        if text.rfind(b"[") != 0:
            return None
        parser: Any = _kept.parser if len(text) <= _KEPT_BYTES else simdjson.Parser()
        try:
            # No name is given to what was parsed: while it is referred to, the parser refuses to parse.
            values: Array = np.frombuffer(parser.parse(text).as_buffer(of_type=self._type), self._widest)
        except (TypeError, ValueError, RuntimeError):
            return None
        if len(values) != self._count:
            return None
        if self._narrow:
            if not self._fit(values):
                return None
            values = values.astype(self._dtype)
        values.flags.writeable = False
        return values

    def _fit(self, values: Array) -> bool:
        if self._type == "d":
            # Few are near the limits: of most, the sum of the squares says so, in a third of the time.
            with np.errstate(over="ignore"):
                if np.dot(values, values) <= self._square:
                    return True
        return bool(values.min() >= self._least and values.max() <= self._most)
