"""An environment as `cdk synth` writes it, with every nag pack's report: made once per session."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, NIST80053R5Checks, ServerlessChecks
from jsii.errors import JSIIError

from app import ROOT, build
from catalog.environment import Environment
from catalog.loader import Platform
from catalog.model import ModelSpec

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

    def function(self, name: str) -> Resource:
        """The Lambda function of this name."""
        [found] = [
            r for r in self.resources("AWS::Lambda::Function") if r.properties.get("FunctionName") == name
        ]
        return found

    def nag(self, pack: str) -> dict[str, Any]:
        """What one pack of cdk-nag found."""
        [report] = [each for each in self.report["pluginReports"] if each["pluginName"] == pack]
        return report


Build = Callable[[cdk.App, Environment, Sequence[ModelSpec]], None]


def assemble(folder: Path, platform: Platform, build: Build = build) -> Assembly:
    """What the app writes to `folder` for a platform, looked at by every pack of cdk-nag.

    A finding does not stop it: it is in the report.

    Args:
        build: adds the stacks; by default all of the app's.
    """
    app = cdk.App(outdir=str(folder), context=json.loads((ROOT / "cdk.json").read_text())["context"])
    Validations.of(app).add_plugins(*(pack(app) for pack in NAG_PACKS.values()))
    build(app, platform.environment, platform.models)
    try:
        app.synth()
    except JSIIError as error:
        if not str(error).startswith("ValidationFailed"):
            raise
    templates = {
        path.name.removesuffix(".template.json"): json.loads(path.read_text())
        for path in sorted(folder.glob("*.template.json"))
    }
    report = json.loads((folder / "validation-report.json").read_text())
    return Assembly(platform.environment.name, folder, templates, report)
