"""`python -m benchmarks`: this server, the engine alone and its peers, in one run on the same cores.

For each model rounds: the engine's limit, then every server at every setting is started, asked once and
compared with the engine, warmed up, loaded with each number of connections, and stopped. Then once more the
limit. Before each server is loaded the engine runs rows one after the other.

This server is there for the whole of a round, and loaded just before every load of another one: what else the
machine has to do at a time is then in both of the numbers that are compared.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np

from benchmarks import models, report, servers
from benchmarks.report import OURS, Point, Run
from benchmarks.servers import HOME, Setting, Unavailable, Workload
from inferctl import load, serving
from inferctl.environment import ROOT

#: For which a server is waited for that has something to do and was asked nothing, at most.
_IDLE_SECONDS = 5
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
    machine = _machine(cores, options) | {"compiled": OURS not in options.servers or _compile()}
    points: list[Point] = []
    limits: dict[str, dict[int, list[float]]] = {}
    unavailable: dict[str, str] = {}
    for file in files:
        workload = Workload.of(file, options.axis)
        limit = limits[workload.name] = {each: [] for each in options.connections}
        for number in range(options.rounds):
            _add_limit(limit, workload, options)
            # Each round begins with another server, so that none always comes after the same one.
            turn = number % max(1, len(settings))
            with ExitStack() as stack:
                engine = stack.enter_context(_engine(workload, options))
                # Once it has answered it is loaded: while it is, a server would find out another plan.
                engine()
                own = None
                if OURS in options.servers:
                    own = stack.enter_context(_ready(servers.OWN, workload, number, options))
                    if not settings:
                        points += _loaded(own, None, engine())
                for setting in settings[turn:] + settings[:turn]:
                    if setting.server in unavailable or not any(map(setting.suits, options.connections)):
                        continue
                    try:
                        with _ready(setting, workload, number, options) as measured:
                            points += _loaded(measured, own, engine())
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


@dataclass(frozen=True)
class _Measured:
    """A server that is ready to be loaded, in a round."""

    setting: Setting
    server: servers.Running
    workload: Workload
    number: int
    options: argparse.Namespace
    start_seconds: float
    rss_mb: float

    def load(self, connections: int, alone: float, ours: float | None = None) -> Point:
        """Load it. This server's own rate is `ours`."""
        result = load.measure(self.server.request, connections, self.options.seconds)
        name, setting = self.workload.name, self.setting
        _say(
            f"{name:8} round {self.number + 1} {setting.server:12} {setting.label:22} "
            f"c={connections:<3} {result.per_second:10,.0f}/s  p99 {result.p99:8.2f} ms  "
            f"{result.failed} failed  {result.per_second / alone:.2f} of rows in turns"
        )
        return Point(
            name,
            setting.server,
            setting.label,
            self.number,
            self.start_seconds,
            self.rss_mb,
            alone,
            result.per_second if ours is None else ours,
            result,
        )


@contextmanager
def _ready(
    setting: Setting, workload: Workload, number: int, options: argparse.Namespace
) -> Iterator[_Measured]:
    """Start a server, hold its answer against the engine's, and once more when it has been loaded."""
    log = HOME / "logs" / f"{setting.server} {setting.label} {workload.name}.log".replace(" ", "-")
    log.parent.mkdir(exist_ok=True)
    started = time.perf_counter()
    with log.open("w") as file, servers.running(setting, workload, file) as server:
        _check(server, workload)
        start_seconds = time.perf_counter() - started
        rss = _rss_mb(server.pid)
        load.measure(server.request, 16, 1)
        _wait_until_idle(server.pid)
        yield _Measured(setting, server, workload, number, options, start_seconds, rss)
        # Under load nothing may have come apart.
        _check(server, workload)


def _loaded(measured: _Measured, own: _Measured | None, alone: float) -> Iterator[Point]:
    """Load a server with each number of connections, and just before each time this one."""
    for connections in filter(measured.setting.suits, measured.options.connections):
        ours = 0.0
        if own:
            _wait_until_idle(measured.server.pid)
            point = own.load(connections, alone)
            ours = point.ours
            yield point
        yield measured.load(connections, alone, ours if measured.setting.server != OURS else None)


def _wait_until_idle(pid: int) -> None:
    """Some still answer clients that have left."""
    before, until = _cpu_seconds(pid), time.monotonic() + _IDLE_SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)
        after = _cpu_seconds(pid)
        if after - before < 0.02:
            break
        before = after


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
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    return sum(int(statm.split()[1]) * page for statm in _tree(pid, "statm"))


def _cpu_seconds(pid: int) -> float:
    """The processor time that a process and its descendants have taken."""
    tick = os.sysconf("SC_CLK_TCK")
    # What comes before is the command, which may have spaces in it.
    fields = (stat.rpartition(")")[2].split() for stat in _tree(pid, "stat"))
    return sum((int(user) + int(system)) / tick for *_, user, system in (each[:13] for each in fields))


def _tree(pid: int, file: str) -> Iterator[str]:
    """What /proc has in `file` about a process and its descendants."""
    try:
        yield Path(f"/proc/{pid}/{file}").read_text()
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child), file)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile


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
    known = [OURS, *dict.fromkeys(setting.server for setting in servers.SETTINGS)]
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
    parser.add_argument("--rounds", type=int, help="(3, quick: 1)")
    parser.add_argument("--cores", type=int, default=2, help="for servers and client together (2)")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="a folder")
    options = parser.parse_args()
    options.seconds = options.seconds or (1 if options.quick else 5)
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


if __name__ == "__main__":
    sys.exit(main())
