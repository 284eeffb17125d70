"""What tests of releases do: release versions of the sample models, and call meanwhile."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app import ROOT
from catalog.names import Names
from inferctl import releases
from inferctl.releases import Release
from tests.integration.platform.conftest import Platform

NAMES = Names("local")
ACCOUNT, REGION = "000000000000", "us-east-1"
MODELS = NAMES.bucket("models", ACCOUNT, REGION)
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{NAMES.release_machine}"


def start(platform: Platform, model: str, version: str, sha256: str) -> str:
    """Start a release; its execution."""
    about = {"source": "cli", "who": "tests", "why": "a test"}
    given = {"model": model, "version": version, "sha256": sha256, **about}
    started = platform.aws("stepfunctions").start_execution(stateMachineArn=MACHINE, input=json.dumps(given))
    return str(started["executionArn"])


def ended(platform: Platform, model: str, execution: str) -> Release:
    """Wait for a release's end; what its history says."""
    seen = list(releases.follow(platform.deployed.aws, "local", model, execution))
    assert seen, "no trace in the history"
    return seen[-1]


def serving(platform: Platform, model: str) -> str:
    """The artifact that the model says it runs, at the address that clients use."""
    answer = platform.call("GET", f"/v2/models/{model}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["parameters"]["artifact_sha256"])


def live(platform: Platform, model: str) -> str:
    """The artifact that is said to be live."""
    found = platform.aws("ssm").get_parameter(Name=NAMES.live_parameter(model))
    return str(found["Parameter"]["Value"])


@contextlib.contextmanager
def settings(platform: Platform, model: str, **changes: Any) -> Iterator[None]:
    """Release a model otherwise than its deployment says, for a while."""
    ssm, name = platform.aws("ssm"), NAMES.release_parameter(model)
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.put_parameter(Name=name, Value=json.dumps(json.loads(before) | changes), Overwrite=True)
    try:
        yield
    finally:
        ssm.put_parameter(Name=name, Value=before, Overwrite=True)


@dataclass
class Callers:
    """A client that calls a model all the time: what was answered, by version, and what was not.

    `body` is what it asks, if not the sample model's sample.
    """

    platform: Platform
    model: str
    body: bytes | None = None
    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return self.versions.total() + len(self.failures)

    @contextlib.contextmanager
    def calling(self, pause: float = 0.05) -> Iterator[None]:
        stop = threading.Event()
        body = self.body or (ROOT / "models" / self.model / "sample.json").read_bytes()

        def call() -> None:
            while not stop.wait(pause):
                answer = self.platform.infer(self.model, body)
                if answer.status_code == 200:
                    self.versions[answer.json()["model_version"]] += 1
                else:
                    self.failures.append(f"{answer.status_code} {answer.text}")

        thread = threading.Thread(target=call)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
