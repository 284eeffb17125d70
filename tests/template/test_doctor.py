"""What the doctor takes the templates to need is what they need."""

import json

from app import ROOT
from catalog.loader import load_platform
from inferctl.doctor.account import BOOTSTRAP_VERSION
from inferctl.doctor.quotas import RESOURCES_OF_THE_API, RESOURCES_PER_MODEL
from stacks.constructs.routes import resources
from tests.assembly import Assembly


def test_the_bootstrap_version_is_the_one_that_the_stacks_ask_for(dev: Assembly) -> None:
    manifest = json.loads((dev.folder / "manifest.json").read_text())
    asked = [
        artifact["properties"]["requiresBootstrapStackVersion"]
        for artifact in manifest["artifacts"].values()
        if artifact["type"] == "aws:cloudformation:stack"
    ]
    assert max(asked) == BOOTSTRAP_VERSION


def test_the_api_has_as_many_resources_as_are_counted_against_the_quota(dev: Assembly) -> None:
    paths = dev.one("AWS::ApiGateway::RestApi").properties["Body"]["paths"]
    models = len(load_platform(ROOT, "dev").models)
    assert resources(paths) == RESOURCES_OF_THE_API + RESOURCES_PER_MODEL * models
