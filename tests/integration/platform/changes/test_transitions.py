"""The catalog changes under load: models come, one is renamed, one moves to a GPU and back, and they go."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import ROOT
from catalog.loader import load_platform
from catalog.model import CpuModel, GpuModel, ModelSpec
from tests.integration.platform.changes.deploying import DOUBLE, deploy, doubling
from tests.integration.platform.conftest import Platform

pytestmark = pytest.mark.changes

WEIGHTS = "weights"
PAUSE = 0.25  # seconds between two calls of a client: often enough to hit every step, and cores stay for it
SAMPLES = {
    name: (ROOT / "models" / name / "sample.json").read_bytes() for name in ("file-type", "text-embedding")
}


def doubler(platform: Platform, name: str, target: str, folder: Path) -> ModelSpec:
    """A model of one multiplication, whose artifact is already in S3."""
    artifact = doubling(folder / name, name)
    for file in (folder / name).iterdir():
        platform.aws("s3").upload_file(str(file), WEIGHTS, f"{name}/{file.name}")
    common: dict[str, Any] = {
        "name": name,
        "description": "Doubles numbers.",
        "owner": "ml",
        "version": "1.0.0",
        "artifact": {"source": f"s3://{WEIGHTS}/{name}/", "sha256": artifact.manifest.sha256},
    }
    if target == "cpu":
        return CpuModel.model_validate({**common, "target": "cpu"})
    return GpuModel.model_validate({**common, "target": "gpu", "gpu": {"instance_type": "ml.g5.xlarge"}})


def ask(platform: Platform, model: str) -> httpx.Response:
    """A model's answer to its sample; a request that timed out is sent again, as clients do.

    A machine with other things to do may need more than the 29 seconds of a request to start a function.
    """
    for _ in range(5):
        answer = platform.infer(model, SAMPLES.get(model, DOUBLE))
        if answer.status_code != 504:
            break
    return answer


class Callers:
    """Clients that call models all the time, and what went wrong."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    @contextlib.contextmanager
    def calling(self, *models: str) -> Iterator[None]:
        """Call these models until the block ends, and once more then."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._call, args=(stop, model)) for model in models]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _call(self, stop: threading.Event, model: str) -> None:
        last = False
        while not last:
            last = stop.wait(PAUSE)
            answer = ask(self._platform, model)
            self.answers[model] += 1
            if answer.status_code != 200:
                self.failures.append(f"{model}: {answer.status_code} {answer.text}")


class Catalog:
    """Deploys one catalog after the other."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self._platform = platform
        self._base = load_platform(ROOT, "local")
        self.assembly = folder / "assembly"
        self.added: tuple[ModelSpec, ...] = ()

    def deploy(self, *models: ModelSpec) -> None:
        """What `cdk deploy --all` does with the platform's models and these."""
        self.added = models
        deploy(self._platform, self._base.environment, [*self._base.models, *models], self.assembly)

    def prune(self) -> Sequence[str]:
        done = self._platform.inferctl("--json", "prune", "--yes", "--assembly", str(self.assembly))
        assert done.returncode == 0, done.stdout + done.stderr
        return sorted(json.loads(done.stdout)["deleted"])


@pytest.fixture
def catalog(platform: Platform, tmp_path: Path) -> Iterator[Catalog]:
    platform.aws("s3").create_bucket(Bucket=WEIGHTS)
    catalog = Catalog(platform, tmp_path)
    yield catalog
    if catalog.added:
        # Something failed half-way: the next test finds the platform as it was.
        catalog.deploy()
        catalog.prune()


def test_models_come_are_renamed_move_and_go_without_a_failed_request(
    platform: Platform, catalog: Catalog, tmp_path: Path
) -> None:
    always = {model.name for model in load_platform(ROOT, "local").models}

    def served() -> dict[str, str]:
        # Each deployment changes the catalog function, which may start as slowly as any other.
        for _ in range(5):
            answer = platform.call("GET", "/v2/models")
            if answer.status_code == 200:
                break
        listed = answer.json()["models"]
        return {model["name"]: model["target"] for model in listed if model["name"] not in always}

    def status(model: str) -> int:
        statuses = {
            platform.infer(model, DOUBLE).status_code,
            platform.call("GET", f"/v2/models/{model}").status_code,
            platform.call("GET", f"/v2/models/{model}/ready").status_code,
        }
        assert len(statuses) == 1, (model, statuses)
        return statuses.pop()

    def doubled(model: str) -> list[float]:
        answer = ask(platform, model)
        assert answer.status_code == 200, answer.text
        numbers: list[float] = answer.json()["outputs"][0]["data"]
        return numbers

    callers = Callers(platform)
    before = doubler(platform, "before", "cpu", tmp_path / "1")
    after = doubler(platform, "after", "cpu", tmp_path / "2")
    on_cpu = doubler(platform, "mover", "cpu", tmp_path / "3")
    on_gpu = doubler(platform, "mover", "gpu", tmp_path / "4")

    with callers.calling(*SAMPLES):
        catalog.deploy(before, on_cpu)
        assert served() == {"before": "cpu", "mover": "cpu"}
        assert (doubled("before"), doubled("mover")) == ([2, -5], [2, -5])

        with callers.calling("mover"):
            catalog.deploy(after, on_gpu)
            assert served() == {"after": "cpu", "mover": "gpu"}
            assert (doubled("after"), doubled("mover")) == ([2, -5], [2, -5])
            assert status("before") == 404
            assert catalog.prune() == ["inference-local-model-before-cpu", "inference-local-model-mover-cpu"]

            catalog.deploy(on_cpu)
            assert (served(), doubled("mover")) == ({"mover": "cpu"}, [2, -5])
            assert status("after") == 404
            assert catalog.prune() == ["inference-local-model-after-cpu", "inference-local-model-mover-gpu"]
            assert status("mover") == 200

        catalog.deploy()
        assert served() == {}
        assert status("mover") == 404
        assert catalog.prune() == ["inference-local-model-mover-cpu"]

    assert callers.failures == []
    assert callers.answers.keys() == {*SAMPLES, "mover"}
