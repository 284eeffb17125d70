"""Composition root: reads an environment and the catalog, and builds the stacks. Nothing else happens here.

    cdk deploy --all --context env=dev

Without the context value, INFERENCE_ENV names the environment.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk

from catalog.environment import Environment
from catalog.errors import CatalogError
from catalog.loader import load_platform
from catalog.model import CpuModel, ModelSpec
from catalog.names import ENVIRONMENT_TAG
from stacks import limits
from stacks.account import AccountStack
from stacks.api import ApiStack
from stacks.artifacts import ArtifactsStack
from stacks.audit import AuditStack
from stacks.ci import CiStack
from stacks.cpu_model import CpuModelStack
from stacks.drift import DriftStack
from stacks.firewall import FirewallStack
from stacks.gpu_model import GpuModelStack
from stacks.health import HealthStack
from stacks.identity import IdentityStack
from stacks.keys import KeysStack
from stacks.network import NetworkStack
from stacks.observability import ObservabilityStack
from stacks.releases import ReleasesStack
from stacks.retirement import RetirementStack
from stacks.storage import StorageStack

ROOT = Path(__file__).parent


def build(app: cdk.App, environment: Environment, models: Sequence[ModelSpec]) -> None:
    """Add the platform's stacks to `app`, in the order in which they are deployed."""
    keys = KeysStack(app, environment)
    network = NetworkStack(app, environment)
    storage = StorageStack(app, environment)
    identity = IdentityStack(app, environment, models)
    observability = ObservabilityStack(app, environment, models)
    artifacts = ArtifactsStack(app, environment, models)
    for encrypted in (network, storage, identity, observability, artifacts):
        encrypted.add_stack_dependency(keys)
    artifacts.add_stack_dependency(storage)
    retirement = RetirementStack(app, environment)
    for needed in (keys, storage, observability):
        retirement.add_stack_dependency(needed)

    if DriftStack.has_work(models):
        drift = DriftStack(app, environment, models)
        for before in (network, storage, observability, artifacts):
            drift.add_stack_dependency(before)

    served: list[cdk.Stack] = []
    for model in models:
        if isinstance(model, CpuModel):
            served.append(CpuModelStack(app, environment, model))
        else:
            served.append(GpuModelStack(app, environment, model))
    for model_stack in served:
        for earlier in (network, artifacts, observability):
            model_stack.add_stack_dependency(earlier)

    # Routes name functions and endpoints, so they do not need the models' stacks; clients need the models
    # first.
    api = ApiStack(app, environment, models)
    if environment.firewall.enabled:
        firewall = FirewallStack(app, environment)
        firewall.add_stack_dependency(keys)
        api.add_stack_dependency(firewall)
    for called in (keys, identity, observability, *served):
        api.add_stack_dependency(called)

    # Its alarm names those of the models, the API's among them: removing one changes it first.
    health = HealthStack(app, environment, models)
    health.add_stack_dependency(api)

    # Releases ask models through the API.
    releases = ReleasesStack(app, environment, models)
    releases.add_stack_dependency(api)

    if environment.audit.trail:
        audit = AuditStack(app, environment)
        audit.add_stack_dependency(storage)
    if AccountStack.has_work(environment.audit):
        account = AccountStack(app, environment)
        for needed in (keys, observability, *([audit] if environment.audit.trail else ())):
            account.add_stack_dependency(needed)

    if environment.ci:
        CiStack(app, environment, environment.ci)

    cdk.Tags.of(app).add(ENVIRONMENT_TAG, environment.name)


def main() -> None:
    # Stack traces hold temporary paths: without them two syntheses are equal, byte for byte.
    app = cdk.App(
        context={"aws:cdk:disable-creation-stack-traces": True, "aws:cdk:disable-stack-trace": True}
    )
    name = app.node.try_get_context("env") or os.environ.get("INFERENCE_ENV")
    if not name:
        known = ", ".join(sorted(path.stem for path in (ROOT / "config").glob("*.yaml")))
        sys.exit(f"Which environment? Pass --context env=<name> or set INFERENCE_ENV. Known: {known}.")
    try:
        platform = load_platform(ROOT, name)
        build(app, platform.environment, platform.models)
        limits.check(app.synth())
    except CatalogError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
