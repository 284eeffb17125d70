"""A hundred models in one app: everything grows linearly, and nothing outgrows what AWS takes."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from app import ROOT, build
from catalog.environment import Environment
from catalog.errors import CatalogError
from catalog.loader import load_platform
from catalog.model import CpuModel, GpuModel, ModelSpec
from stacks import limits
from stacks.api import ApiStack
from stacks.constructs.function import ENVIRONMENT_BYTES

FEW, MANY = 10, 100


def catalog(size: int, targets: Sequence[str] = ("cpu", "gpu")) -> list[ModelSpec]:
    """Models with the longest of names, on each target in turn, whose artifacts are already in S3."""
    models: list[ModelSpec] = []
    for number in range(size):
        name = f"model-{number:04}-of-thirty-two-letters"
        assert len(name) == 32
        common = {
            "name": name,
            "description": "One of many.",
            "owner": "ml",
            "version": "1.0.0",
            "artifact": {"source": f"s3://weights/{name}/", "sha256": f"{number:064x}"},
        }
        if targets[number % len(targets)] == "cpu":
            models.append(CpuModel.model_validate({**common, "target": "cpu"}))
        else:
            gpu = {"instance_type": "ml.g5.xlarge"}
            models.append(GpuModel.model_validate({**common, "target": "gpu", "gpu": gpu}))
    return models


def account(quota: int = 1000) -> Environment:
    """The environment prod, in an account that was granted more API resources."""
    environment = load_platform(ROOT, "prod").environment
    return environment.model_copy(
        update={"quotas": environment.quotas.model_copy(update={"api_resources": quota})}
    )


@dataclass(frozen=True)
class Synthesis:
    templates: dict[str, dict[str, Any]]
    sizes: dict[str, int]

    def resources(self, *types: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for stack, template in self.templates.items():
            for logical_id, resource in template["Resources"].items():
                if resource["Type"] in types:
                    yield f"{stack}/{logical_id}", resource["Properties"]


@pytest.fixture(scope="module")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Synthesis]:
    done: dict[int, Synthesis] = {}

    def run(size: int) -> Synthesis:
        if size not in done:
            folder = tmp_path_factory.mktemp(f"{size}-models")
            context = json.loads((ROOT / "cdk.json").read_text())["context"]
            app = cdk.App(outdir=str(folder), context=context)
            build(app, account(), catalog(size))
            limits.check(app.synth())
            paths = {path.name.split(".")[0]: path for path in folder.glob("*.template.json")}
            done[size] = Synthesis(
                {name: json.loads(path.read_text()) for name, path in paths.items()},
                {name: path.stat().st_size for name, path in paths.items()},
            )
        return done[size]

    return run


@pytest.fixture(scope="module")
def few(synthesize: Callable[[int], Synthesis]) -> Synthesis:
    return synthesize(FEW)


@pytest.fixture(scope="module")
def many(synthesize: Callable[[int], Synthesis]) -> Synthesis:
    return synthesize(MANY)


def counts(synthesis: Synthesis) -> Counter[str]:
    return Counter({name: len(template["Resources"]) for name, template in synthesis.templates.items()})


def test_a_models_stack_costs_the_same_however_many_there_are(few: Synthesis, many: Synthesis) -> None:
    def kinds(synthesis: Synthesis) -> Counter[tuple[str, int]]:
        return Counter(
            (name.rsplit("-", 1)[-1], resources)
            for name, resources in counts(synthesis).items()
            if "-model-" in name
        )

    assert kinds(few).keys() == kinds(many).keys()
    assert set(kinds(few).values()) == {FEW // 2}
    assert set(kinds(many).values()) == {MANY // 2}


def test_shared_stacks_grow_by_at_most_one_resource_per_model(few: Synthesis, many: Synthesis) -> None:
    shared = {name for name in many.templates if "-model-" not in name}
    for name in shared:
        assert 0 <= counts(many)[name] - counts(few)[name] <= MANY - FEW, name
    # The API is one document: its stack does not grow at all.
    assert counts(many)["inference-prod-api"] == counts(few)["inference-prod-api"]


def test_templates_grow_linearly_and_stay_below_cloudformations_limits(
    few: Synthesis, many: Synthesis
) -> None:
    assert max(counts(many).values()) <= 500
    assert max(many.sizes.values()) <= limits.TEMPLATE_BYTES
    for name in few.sizes:
        # Twice as large per model would be a square.
        assert many.sizes[name] <= few.sizes[name] * MANY / FEW, name


def test_a_hundred_models_fit_into_what_iam_lambda_and_cloudwatch_take(many: Synthesis) -> None:
    inline: Counter[str] = Counter()
    for name, policy in many.resources("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        # IAM counts no whitespace. A reference is at most as long as what it stands for, roughly.
        size = len(json.dumps(policy["PolicyDocument"], separators=(",", ":")))
        if "PolicyName" in policy:
            for role in policy["Roles"]:
                inline[name.split("/")[0] + json.dumps(role)] += size
        else:
            assert size <= 6144, name
    assert max(inline.values()) <= 10240
    for name, function in many.resources("AWS::Lambda::Function"):
        variables = function.get("Environment", {}).get("Variables", {})
        texts = [*variables, *(v if isinstance(v, str) else json.dumps(v) for v in variables.values())]
        assert sum(map(len, texts)) <= ENVIRONMENT_BYTES, name
    for name, dashboard in many.resources("AWS::CloudWatch::Dashboard"):
        widgets = json.dumps(dashboard["DashboardBody"]).count('\\"properties\\":')
        assert 0 < widgets <= 500, name


def test_more_routes_than_the_account_may_have_are_refused_with_the_quotas_name(tmp_path: Path) -> None:
    def attempt(models: int, quota: int) -> None:
        build(cdk.App(outdir=str(tmp_path)), account(quota), catalog(models))

    attempt(2, quota=12)
    with pytest.raises(CatalogError) as refused:
        attempt(2, quota=11)
    assert str(refused.value).startswith(
        "config/prod.yaml:1: quotas.api_resources: the catalog's routes are 12 API resources of 11: "
        "raise the quota `Resources/Routes per REST/WebSocket API`, L-01C8A9E0 of API Gateway"
    )


def test_names_that_a_functions_environment_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"variables of the function catalog have \d+ bytes of the 4096"):
        ApiStack(cdk.App(outdir=str(tmp_path)), account(), catalog(130, ["cpu"]))


def test_a_template_that_cloudformation_would_refuse_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = cdk.App(outdir=str(tmp_path))
    stack = cdk.Stack(app, "large")
    cdk.CfnResource(stack, "Large", type="Custom::Large", properties={"Text": "x" * 100})
    assembly = app.synth()
    limits.check(assembly)
    monkeypatch.setattr(limits, "TEMPLATE_BYTES", 100)
    with pytest.raises(CatalogError, match=r"large\.template\.json:1: has \d+ bytes of the 100"):
        limits.check(assembly)
