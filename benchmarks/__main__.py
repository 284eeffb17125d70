"""`python -m benchmarks`: this server, the engine alone and its peers, in one run on the same cores.

For each model rounds: the engine's limit, then every server at every setting is started, asked once and
compared with the engine, warmed up, loaded with each number of connections, and stopped. Then once more the
limit. Before each server is loaded the engine runs rows one after the other.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np

from benchmarks import models, report, servers
from benchmarks.report import OURS, Point, Run
from benchmarks.servers import HOME, Setting, Unavailable, Workload
from inferctl import load, serving
from inferctl.environment import ROOT

#: Of the largest value of an output: what float32 and another order of summation differ by, and no more.
TOLERANCE = 1e-3


def main() -> int:
    """The command line. Returns 1 when an answer was wrong or a request failed."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives this
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed, the same client for all: `apt-get install wrk` (Debian, Ubuntu)")
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)  # the servers and the client inherit it
    HOME.mkdir(parents=True, exist_ok=True)
    files = [*(models.made(name, HOME / "models") for name in options.models or []), *options.model]
    if not files:
        names = ("mlp", "wide") if options.quick else tuple(models.MODELS)
        files = [models.made(name, HOME / "models") for name in names]
    settings = [
        each
        for each in servers.SETTINGS
        if each.server in options.servers and (each.quick or not options.quick)
    ]
    machine = _machine(cores, options) | {"compiled": OURS in options.servers and _compile()}
    points: list[Point] = []
    limits: dict[str, dict[int, list[float]]] = {}
    unavailable: dict[str, str] = {}
    for file in files:
        workload = Workload.of(file, options.axis)
        limit = limits[workload.name] = {each: [] for each in options.connections}
        for number in range(options.rounds):
            _add_limit(limit, workload, options)
            # Each round begins with another server, so that none always comes after the same one.
            turn = number % len(settings)
            with _engine(workload, options) as engine:
                for setting in settings[turn:] + settings[:turn]:
                    if setting.server in unavailable or not any(map(setting.suits, options.connections)):
                        continue
                    try:
                        points += _measured(setting, workload, number, engine, options)
                    except Unavailable as reason:
                        unavailable[setting.server] = str(reason)
                        _say(f"{setting.server}: {reason}")
        _add_limit(limit, workload, options)
        # After each model: what is measured by then is not lost if the rest is not waited for.
        run = Run(machine, points, limits, unavailable)
        _write(run, options.output)
    print(report.table(run))
    _say(f"{options.output}: results.json, table.md, plot.svg")
    return int(any(point.result.failed for point in points))


def _write(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(run.document(), indent=1))
    (folder / "table.md").write_text(report.table(run) + "\n")
    (folder / "plot.svg").write_text(report.plot(run))


def _measured(
    setting: Setting,
    workload: Workload,
    number: int,
    engine: Callable[[], float],
    options: argparse.Namespace,
) -> list[Point]:
    points = []
    log = HOME / "logs" / f"{setting.server} {setting.label} {workload.name}.log".replace(" ", "-")
    log.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file, servers.running(setting, workload, file) as server:
        _check(server, workload)
        start_seconds = time.perf_counter() - started
        rss = _rss_mb(server.pid)
        # Now, as the server has nothing to do: after load, some still answer clients that have left.
        alone = engine()
        load.measure(server.request, 16, 1)
        for connections in filter(setting.suits, options.connections):
            result = load.measure(server.request, connections, options.seconds)
            points.append(
                Point(workload.name, setting.server, setting.label, number, start_seconds, rss, alone, result)
            )
            _say(
                f"{workload.name:8} round {number + 1} {setting.server:12} {setting.label:22} "
                f"c={connections:<3} {result.per_second:10,.0f}/s  p99 {result.p99:8.2f} ms  "
                f"{result.failed} failed  {result.per_second / alone:.2f} of rows in turns"
            )
        # Under load nothing may have come apart.
        _check(server, workload)
    return points


def _check(server: servers.Running, workload: Workload) -> None:
    """Hold the server's answer against the engine's."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        until = time.monotonic() + 30
        while True:
            # Some say that they are ready before their workers are.
            answer = client.post(
                server.request.url, content=server.request.body, headers=dict(server.request.headers)
            )
            if answer.is_success or time.monotonic() > until:
                break
            time.sleep(0.2)
    if not answer.is_success:
        raise Unavailable(f"it answers {answer.status_code}: {answer.text[:200]}")
    found = server.read(answer)
    for name, expected in workload.answer.items():
        difference = np.abs(np.asarray(found[name], np.float64).reshape(-1) - expected.reshape(-1)).max()
        if not difference <= TOLERANCE * np.abs(expected).max():
            raise Unavailable(f"its answer is wrong: output {name!r} differs by {difference}")


def _compile() -> bool:
    """Have this server as its image has it. Returns whether that could be done here."""
    command = [sys.executable, "-m", "inference_containers.onnx.compilation", str(serving.COMPILED)]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode == 0


def _add_limit(limit: dict[int, list[float]], workload: Workload, options: argparse.Namespace) -> None:
    """In a process of its own, so that its threads and its memory are gone when servers are measured."""
    together = [str(each) for each in options.connections]
    done = subprocess.run(
        [*_limit(workload, options), "--seconds", "0.1" if options.quick else "0.5", "--together", *together],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    for together_, rate in json.loads(done.stdout).items():
        limit[int(together_)].append(rate)
    _say(f"{workload.name:8} the engine alone: {', '.join(f'{r[-1]:,.0f}' for r in limit.values())} rows/s")


@contextmanager
def _engine(workload: Workload, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """What measures the engine alone, a row at a time on all cores: rows a second. Idle in between."""
    with subprocess.Popen(
        [*_limit(workload, options), "--turns"],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        seconds, answers = process.stdin, process.stdout

        def measure() -> float:
            print(0.2 if options.quick else 1.0, file=seconds, flush=True)
            return float(answers.readline())

        yield measure
        seconds.close()


def _limit(workload: Workload, options: argparse.Namespace) -> list[str]:
    return [sys.executable, "-m", "benchmarks.limit", str(workload.model), "--axis", str(options.axis)]


def _rss_mb(pid: int) -> float:
    """The resident memory of a process and its descendants, in MB."""
    total = 0.0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(map(_rss_mb, map(int, (task / "children").read_text().split())))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile
    return total


def _machine(cores: list[int], options: argparse.Namespace) -> dict[str, object]:
    processor = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "processor": processor,
        "cores": len(cores),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "load_average": os.getloadavg(),
        "seconds": options.seconds,
        "rounds": options.rounds,
        "quick": options.quick,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    known = list(dict.fromkeys(setting.server for setting in servers.SETTINGS))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="two models, one round of a second: under 2 minutes"
    )
    parser.add_argument("--models", nargs="+", choices=list(models.MODELS), help="which of its own models")
    parser.add_argument("--model", nargs="+", type=Path, default=[], help="ONNX files of yours")
    parser.add_argument("--axis", type=int, default=128, help="length of axes that a model leaves open (128)")
    parser.add_argument("--servers", nargs="+", choices=known, default=known, help="which servers")
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 16, 64], help="1 16 64")
    parser.add_argument("--seconds", type=int, help="of each measurement (5, quick: 1)")
    parser.add_argument("--rounds", type=int, help="(5, quick: 1)")
    parser.add_argument("--cores", type=int, default=2, help="for servers and client together (2)")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="a folder")
    options = parser.parse_args()
    options.seconds = options.seconds or (1 if options.quick else 5)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


if __name__ == "__main__":
    sys.exit(main())
