"""One synthesis per environment and session, through the app's own composition root."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, NIST80053R5Checks, ServerlessChecks

from app import ROOT, build
from catalog.environment import Environment
from catalog.loader import Platform, load_environment, load_platform

ENVIRONMENTS = ("local", "dev", "prod")

NAG_PACKS = {
    "AwsSolutions": AwsSolutionsChecks,
    "NIST.800.53.R5": NIST80053R5Checks,
    "Serverless": ServerlessChecks,
}
"""The packs of cdk-nag that every template satisfies, by their names in the report."""


@dataclass(frozen=True)
class Resource:
    """A resource of a template: its stack, logical id, type and properties."""

    stack: str
    logical_id: str
    type: str
    properties: dict[str, Any]
    raw: dict[str, Any]


@dataclass(frozen=True)
class Assembly:
    """What `cdk synth` wrote for one environment."""

    environment: str
    folder: Path
    templates: dict[str, dict[str, Any]]
    report: dict[str, Any]

    def resources(self, type_: str | None = None) -> Iterator[Resource]:
        for stack, template in self.templates.items():
            for logical_id, raw in template.get("Resources", {}).items():
                if type_ in (None, raw["Type"]):
                    yield Resource(stack, logical_id, raw["Type"], raw.get("Properties", {}), raw)

    def one(self, type_: str, stack: str | None = None) -> Resource:
        found = [r for r in self.resources(type_) if stack in (None, r.stack)]
        assert len(found) == 1, f"{len(found)} resources of type {type_} in {stack or 'all stacks'}"
        return found[0]


def assemble(folder: Path, platform: Platform) -> Assembly:
    """What the app writes to `folder` for a platform, checked by every pack of cdk-nag."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(folder), context=context)
    Validations.of(app).add_plugins(*(pack(app) for pack in NAG_PACKS.values()))
    build(app, platform.environment, platform.models)
    app.synth()
    templates = {
        path.name.removesuffix(".template.json"): json.loads(path.read_text())
        for path in sorted(folder.glob("*.template.json"))
    }
    report = json.loads((folder / "validation-report.json").read_text())
    return Assembly(platform.environment.name, folder, templates, report)


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Assembly]:
    done: dict[str, Assembly] = {}

    def run(environment: str) -> Assembly:
        if environment not in done:
            folder = tmp_path_factory.mktemp(environment)
            done[environment] = assemble(folder, load_platform(ROOT, environment))
        return done[environment]

    return run


@pytest.fixture(params=ENVIRONMENTS)
def assembly(request: pytest.FixtureRequest, synthesize: Callable[[str], Assembly]) -> Assembly:
    """The assembly of each environment in turn."""
    return synthesize(request.param)


@pytest.fixture
def dev(synthesize: Callable[[str], Assembly]) -> Assembly:
    return synthesize("dev")


@pytest.fixture
def prod(synthesize: Callable[[str], Assembly]) -> Assembly:
    return synthesize("prod")


@pytest.fixture
def dev_environment() -> Environment:
    """What `config/dev.yaml` says, for a stack by itself."""
    return load_environment(ROOT / "config", "dev")
