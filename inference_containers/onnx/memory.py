"""What a process gives back once its model is loaded, so that another of its kind costs less."""

import contextlib
import ctypes
import gc
import re
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ */")
_CODE = "r-xp"
#: <sys/mman.h>
_MADV_DONTNEED = 4


def trim() -> None:
    """Give back free memory, and the pages of code that only starting and loading have used.

    Most of what is resident of ONNX Runtime's library registers operators and optimizes graphs. The pages are
    the file's: what is used again comes back from the page cache, without a read.
    """
    gc.collect()
    libc = ctypes.CDLL(None, use_errno=True)
    # Not every C library has it.
    with contextlib.suppress(AttributeError):
        libc.malloc_trim(0)
    with contextlib.suppress(OSError):
        for start, size in _unchanged_code(Path("/proc/self/smaps").read_text()):
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


def _unchanged_code(smaps: str) -> list[tuple[int, int]]:
    """Address and size of the mappings of code, of files, of which no page was written to: such a page is the
    process's own, and would be lost.
    """
    found = []
    mapping = None
    for line in smaps.splitlines():
        if match := _MAPPING.match(line):
            mapping = match if match[3] == _CODE else None
        elif re.match(r"[0-9a-f]+-", line):
            mapping = None
        elif mapping and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                start = int(mapping[1], 16)
                found.append((start, int(mapping[2], 16) - start))
            mapping = None
    return found
