"""What ONNX Runtime gives in process, with nothing around it.

`python -m benchmarks.limit MODEL` prints, for each number of requests that may be together, the most rows a
second over the ways to use the cores. With `--turns` it reads lines of so many seconds each, and prints the
rows a second for as long: one after the other, on all cores.
"""

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import models
from inferctl.serving import signature

#: A batch that takes longer, in seconds, is the last that is tried: a larger one is no faster a row by then.
_LONG = 0.5


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure ONNX Runtime by itself.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=0.2, help="of each batch, and each way")
    parser.add_argument("--axis", type=int, default=128)
    parser.add_argument("--turns", action="store_true")
    options = parser.parse_args()
    inputs, _ = signature(options.model)
    one = models.request(inputs, options.axis)
    if options.turns:
        session = _session(options.model, len(os.sched_getaffinity(0)))
        for line in sys.stdin:
            print(_runs(session, one, 1, float(line)), flush=True)
        return 0
    rates: list[tuple[int, float]] = []
    for size in sorted({1, 8, 32, *options.together}):
        arrays = {name: np.repeat(array, size, axis=0) for name, array in one.items()}
        found = [
            (size * callers, size * rate) for callers, rate in _ways(options.model, arrays, options.seconds)
        ]
        rates += found
        if size / max(rate for _, rate in found) > _LONG:
            break
    most = {each: max(rate for rows, rate in rates if rows <= each) for each in options.together}
    json.dump(most, sys.stdout)
    return 0


def _ways(model: Path, arrays: dict[str, Any], seconds: float) -> list[tuple[int, float]]:
    """Callers and their runs a second: by all cores, by one thread, by one thread on each core."""
    cores = len(os.sched_getaffinity(0))
    ways = {(cores, 1), (1, 1), (1, cores)}
    return [(callers, _runs(_session(model, threads), arrays, callers, seconds)) for threads, callers in ways]


def _session(model: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _runs(session: Any, arrays: dict[str, Any], callers: int, seconds: float) -> float:
    """Runs a second by `callers` threads, after one that does not count."""
    session.run(None, arrays)
    counts = [0] * callers
    started = time.perf_counter()

    def call(index: int) -> None:
        while True:
            session.run(None, arrays)
            counts[index] += 1
            if time.perf_counter() > started + seconds:
                return

    threads = [threading.Thread(target=call, args=(index,)) for index in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
