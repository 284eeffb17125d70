"""`python -m benchmarks.gpu`: what a GPU's batches cost, as ONNX Runtime runs arrays and as this server does.

For each model and number of requests of one row, in turns: `session.run` on their joined arrays; a captured
graph that is fed from page-locked memory (`inference_runtime/binding.py`); and both with sizes that
alternate, as a server's do. Then the server itself, as `inferctl serve` starts it. Needs a GPU and
requirements-cuda.txt.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import models, servers
from benchmarks.servers import HOME, OWN, Workload
from inferctl import load
from inferctl.serving import signature
from inference_runtime import manifest
from inference_runtime.model import Arrays, Engine, Model

ROWS = (1, 8, 64)


def main() -> int:
    """The command line. Returns 1 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=list(models.MODELS), default=list(models.MODELS))
    parser.add_argument("--rounds", type=int, default=5, help="of every measurement, in turns (5)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each (0.2)")
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--output", type=Path, default=HOME / "gpu.json")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.models:
        file = models.made(name, HOME / "models")
        with tempfile.TemporaryDirectory() as folder:
            batches = _batches(file, Path(folder), options)
        if batches is None:
            print("There is no GPU here, or ONNX Runtime cannot use it.", file=sys.stderr)
            return 1
        found[name] = {"batches": batches, "server": _served(file, options)}
        print(_table(name, found[name]), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1))
    return 0


def _batches(file: Path, folder: Path, options: argparse.Namespace) -> dict[str, list[float]] | None:
    """Microseconds of a run, by what is run: of every round the median."""
    (folder / file.name).write_bytes(file.read_bytes())
    inputs, outputs = signature(file)
    manifest.write(
        folder, name=file.stem, version="0", model=file.name, handler=None, inputs=inputs, outputs=outputs
    )
    artifact = manifest.verify(folder)
    plain, captured = Model(artifact, Engine(device="cuda")), Model(artifact, Engine(device="cuda"))
    if not plain.on_gpu:
        return None
    captured.bind(max(ROWS))
    one = models.request(inputs, 128)
    asked = [spec.name for spec in outputs]

    def run(model: Model, *sizes: int) -> Callable[[], None]:
        # Copies, as each client's arrays are elsewhere.
        batches: list[list[Arrays]] = [
            [{name: array.copy() for name, array in one.items()} for _ in range(rows)] for rows in sizes
        ]

        def call() -> None:
            for batch in batches:
                model.infer_joined(batch, asked)

        return call

    calls = {
        f"{label}, {' and '.join(map(str, sizes))} rows": run(model, *sizes)
        for sizes in (*((rows,) for rows in ROWS), ROWS[:2])
        for label, model in (("arrays", plain), ("captured", captured))
    }
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(options.rounds):
        for label, call in calls.items():
            times[label].append(_microseconds(call, options.seconds))
    return times


def _microseconds(call: Callable[[], None], seconds: float) -> float:
    call()
    times, begun = [], perf_counter()
    while perf_counter() < begun + seconds:
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return statistics.median(times) * 1e6


def _served(file: Path, options: argparse.Namespace) -> dict[int, list[float]]:
    """Requests a second by connections, of every round."""
    workload = Workload.of(file, 128)
    log = HOME / "logs" / f"gpu-{file.stem}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, servers.running(OWN, workload, output) as server:
        load.measure(server.request, 16, 1)
        return {
            connections: [
                load.measure(server.request, connections, 10 * options.seconds).per_second
                for _ in range(min(options.rounds, 3))
            ]
            for connections in options.connections
        }


def _table(name: str, found: dict[str, Any]) -> str:
    lines = [f"#### {name}", "", "| | median | range |", "|---|---:|---:|"]
    for label, times in found["batches"].items():
        lines.append(
            f"| {label} | {statistics.median(times):,.0f} µs | {min(times):,.0f} to {max(times):,.0f} |"
        )
    for connections, rates in found["server"].items():
        label, median = f"server, {connections} connections", statistics.median(rates)
        lines.append(f"| {label} | {median:,.0f}/s | {min(rates):,.0f} to {max(rates):,.0f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
