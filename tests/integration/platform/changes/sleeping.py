"""A GPU model that sleeps while nobody calls it, deployed beside the platform's models for a while."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from app import ROOT
from catalog.loader import load_platform
from catalog.model import GpuModel
from catalog.names import on_target
from inference_runtime.manifest import Manifest
from stacks.api import ApiStack
from stacks.gpu_model import GpuModelStack
from stacks.releases import ReleasesStack
from tests.integration.local_aws.embedded import until
from tests.integration.platform.changes.deploying import doubling
from tests.integration.platform.conftest import Platform

SLEEPER = GpuModel.model_validate(
    {
        "name": "sleeper",
        "description": "Doubles numbers.",
        "owner": "ml",
        "version": "1.0.0",
        "target": "gpu",
        "gpu": {"instance_type": "ml.g5.xlarge"},
        "scaling": {"min": 0},
        "capture": {"percent": 100},
    }
)
NAME = "inference-local-0-sleeper"
STACK = f"inference-local-{on_target('sleeper', 'gpu0')}"
API, RELEASES = "inference-local-api", "inference-local-releases"
ASSETS = "cdk-hnb659fds-assets-000000000000-us-east-1"


def publish(platform: Platform, folder: Path) -> Manifest:
    """Makes an artifact live, as the artifacts' stack does: a model of one multiplication."""
    manifest = doubling(folder, "sleeper").manifest
    for file in folder.iterdir():
        key = f"sleeper/{manifest.sha256}/{file.name}"
        platform.aws("s3").upload_file(str(file), "inference-local-models-000000000000-us-east-1", key)
    platform.aws("ssm").put_parameter(
        Name="/inference/local/models/sleeper/live", Value=manifest.sha256, Type="String"
    )
    return manifest


def deploy(platform: Platform, stack: str, template: dict[str, Any]) -> None:
    """Only the stack that changes: the CDK's command line would look at all of them."""
    cloudformation = platform.aws("cloudformation")
    there = {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]}
    act = cloudformation.update_stack if stack in there else cloudformation.create_stack
    s3, key = platform.aws("s3"), f"{stack}.json"
    s3.put_object(Bucket=ASSETS, Key=key, Body=json.dumps(template))
    act(
        StackName=stack,
        TemplateURL=f"{s3.meta.endpoint_url}/{ASSETS}/{key}",
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )

    def status() -> str:
        found: str = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        return "" if found.endswith("IN_PROGRESS") else found

    ended = until(status, timeout=300)
    assert ended in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), ended


def delete(platform: Platform) -> None:
    cloudformation = platform.aws("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    until(lambda: STACK not in {one["StackName"] for one in cloudformation.describe_stacks()["Stacks"]})


@contextlib.contextmanager
def sleeping(platform: Platform, folder: Path, *, released: bool = False) -> Iterator[Manifest]:
    """The model, with its artifact in `folder`/artifact; afterwards the platform is as it was.

    Args:
        released: let it be released too.
    """
    base = load_platform(ROOT, "local")
    models = [*base.models, SLEEPER]
    app = cdk.App(outdir=str(folder / "out"), context=json.loads((ROOT / "cdk.json").read_text())["context"])
    GpuModelStack(app, base.environment, SLEEPER)
    ApiStack(app, base.environment, models)
    changed = [API]
    if released:
        ReleasesStack(app, base.environment, models)
        changed.append(RELEASES)
    assembly = app.synth()
    cloudformation = platform.aws("cloudformation")
    before = {name: cloudformation.get_template(StackName=name)["TemplateBody"] for name in changed}
    published = publish(platform, folder / "artifact")
    try:
        for name in (STACK, *changed):
            deploy(platform, name, assembly.get_stack_by_name(name).template)
        yield published
        for name, template in before.items():
            deploy(platform, name, json.loads(template) if isinstance(template, str) else template)
    finally:
        delete(platform)
        platform.aws("ssm").delete_parameter(Name="/inference/local/models/sleeper/live")
