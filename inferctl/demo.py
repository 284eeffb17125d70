"""`inferctl demo`: deploy to an embedded AWS, ask every model, check the answers, leave nothing running."""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import local_aws
from catalog import ModelSpec, load_catalog
from catalog.environment import LOCAL
from catalog.names import ADMIN
from inferctl import deployment, tensors
from inferctl.client import Client
from inferctl.environment import ROOT, Deployed, find
from inferctl.errors import InferctlError, ProblemError
from inferctl.output import Board
from inference_runtime.expectations import check

REQUESTS = 10  # per model; the median latency is over all but the first, which may find the model cold


@dataclass(frozen=True)
class Outcome:
    """One line of the demo: what was sent, what came back, and what is wrong with that."""

    request: str
    target: str
    status: int
    median_ms: float | None
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything that the demo saw; times in seconds."""

    outcomes: tuple[Outcome, ...]
    deploy_seconds: float
    total_seconds: float

    @property
    def right(self) -> bool:
        """Whether every answer was as expected."""
        return not any(outcome.wrong for outcome in self.outcomes)

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"right": self.right, **asdict(self)}


def run(board: Board, root: Path = ROOT) -> Report:
    """The whole demo. What it started is stopped again, whatever happens.

    Raises what bringing up the environment raises.
    """
    started = time.monotonic()
    with _home() as home:
        try:
            deployment.up(board, home=home)
            deployed_at = time.monotonic()
            outcomes = converse(find(LOCAL, home), load_catalog(root / "models"), root, board)
        finally:
            with deployment.uninterrupted(), board.step("stop"):
                deployment.down(home=home)
    return Report(outcomes, deployed_at - started, time.monotonic() - started)


def converse(
    deployed: Deployed, catalog: tuple[ModelSpec, ...], root: Path, board: Board
) -> tuple[Outcome, ...]:
    """Ask every model what its sample asks, then two things that must be refused."""
    samples = {spec.name: _json(root / "models" / spec.name / "sample.json") for spec in catalog}
    outcomes = []
    for spec in catalog:
        expected = _json(root / "models" / spec.name / "expected.json")
        with board.step(f"ask {spec.name}"), deployed.client(model=spec.name) as client:
            outcomes.append(ask(client, spec, samples[spec.name], expected))
    first = catalog[0]
    outsider = next((c for c in deployed.environment.clients if c.scopes == (ADMIN,)), None)
    if outsider is None:
        raise InferctlError(
            f"config/local.yaml has no client with the scope {ADMIN!r} alone to show a refusal with."
        )
    with board.step("ask without the right"):
        with Client(deployed.api_url, None, deployed.verify) as nobody:
            outcomes.append(refused(nobody, first, samples[first.name], "no token", {401}))
        with deployed.client(outsider.name) as client:
            label = f"scope {', '.join(outsider.scopes)} only"
            outcomes.append(refused(client, first, samples[first.name], label, {401, 403}))
    return tuple(outcomes)


def ask(client: Client, spec: ModelSpec, sample: dict[str, Any], expected: dict[str, Any]) -> Outcome:
    """Send the sample several times; every answer must be the expected one."""
    times: list[float] = []
    wrong: list[str] = []
    response: dict[str, Any] = {}
    for _ in range(REQUESTS):
        started = time.perf_counter()
        try:
            response = client.infer(spec.name, sample)
        except ProblemError as problem:
            return Outcome(spec.name, spec.target, problem.status, None, problem.detail, (str(problem),))
        times.append(1000 * (time.perf_counter() - started))
        wrong = wrong or check(expected, response)
    return Outcome(
        spec.name, spec.target, 200, statistics.median(times[1:]), tensors.summary(response), tuple(wrong)
    )


def refused(
    client: Client, spec: ModelSpec, sample: dict[str, Any], label: str, allowed: set[int]
) -> Outcome:
    """Send what must be refused with one of the statuses in `allowed`, as a problem document."""
    request = f"{spec.name}, {label}"
    try:
        response = client.infer(spec.name, sample)
    except ProblemError as problem:
        expected = " or ".join(map(str, sorted(allowed)))
        wrong = [] if problem.status in allowed else [f"status {problem.status}, expected {expected}"]
        if problem.type == "about:blank":
            wrong.append("the answer is not a problem document")
        answer = f"{problem.slug}: {problem.detail}"
        return Outcome(request, spec.target, problem.status, None, answer, tuple(wrong))
    return Outcome(request, spec.target, 200, None, tensors.summary(response), ("was answered, not refused",))


@contextmanager
def _home() -> Iterator[Path | None]:
    """The usual folder of the embedded AWS; one of its own while `inferctl up` uses that one."""
    if local_aws.status() is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="inferctl-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InferctlError(f"{path.relative_to(ROOT)} cannot be read: {error}.") from error
    return dict(document)
