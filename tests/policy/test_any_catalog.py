"""Whatever valid configuration and catalog somebody writes: it synthesizes, satisfies every nag pack, and
fits into what CloudFormation takes.

Models are drawn field by field. An environment is drawn from the comprehensive sample, which has every field:
any of its optional parts may be missing, and any of its switches may be the other way.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from app import ROOT
from catalog import ModelSpec, Platform, capacity
from catalog.environment import Environment
from catalog.model import Artifact
from catalog.regions import WITHOUT_COMPONENTS
from inferctl.review.changes import schema
from tests.assembly import NAG_PACKS, Assembly, assemble
from tests.strategies import specs

SAMPLE = YAML(typ="safe").load((ROOT / "tests/samples/environment.comprehensive.yaml").read_text())
REGIONS = {"us-gov-west-1": "us-gov-west-1a", "eu-west-1": "eu-west-1a", "us-east-1": "us-east-1a"}

# A synthesis takes seconds, so few are made, each of many models. The same ones everywhere: a failure is a
# commit's, not chance's.
EXAMPLES, MODELS = 3, 5


@st.composite
def parts(draw: st.DrawFn, whole: Any, keep: float = 0.7) -> Any:
    """A part of a sample: mappings lose keys, switches turn, the rest stays."""
    if isinstance(whole, bool):
        return draw(st.booleans())
    if not isinstance(whole, dict):
        return whole
    kept = [key for key in whole if draw(st.floats(0, 1)) < keep]
    return {key: draw(parts(whole[key], keep)) for key in kept}


NETWORKS = st.just({"cidr": "10.9.0.0/16"}) | st.builds(
    lambda inside: {"cidr": "10.9.0.0/20", "private_control_plane": inside}, st.booleans()
)


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    region = draw(st.sampled_from(sorted(REGIONS)))
    # What belongs to a region belongs to that one.
    sample = json.loads(
        json.dumps(SAMPLE).replace(SAMPLE["region"], region).replace("aws-us-gov", partition(region))
    )
    zones = draw(st.integers(2, 3))
    document = draw(
        parts({key: sample[key] for key in sample.keys() - {"containers", "functions", "network"}})
    )
    document |= {
        "name": draw(st.sampled_from(["dev", "production12"])),
        "account": draw(st.sampled_from([None, "111122223333"])),
        "region": region,
        "availability_zones": [f"{region}{letter}" for letter in "abc"[:zones]],
        "network": draw(NETWORKS)
        | {"s3_prefix_list": "pl-0123456789abcdef0", "dynamodb_prefix_list": "pl-0fedcba9876543210"},
        # Any other would have packages built for it, which takes minutes.
        "functions": {"python": "3.14", "architecture": "x86_64"},
        "containers": {"onnx": draw(st.sampled_from([{"build": True}, {"image_uri": image(region)}]))},
        "clients": draw(st.sampled_from([[], [{"name": "caller", "scopes": ["invoke"]}]])),
    }
    if document["clients"] and draw(st.booleans()):
        document["probe"] = {"client": "caller"}
    if draw(st.booleans()):
        document["ci"] = {"repository": "acme/inference", "oidc_provider": draw(st.booleans())}
    try:
        return Environment.model_validate(document)
    except ValidationError:
        # Parts that do not go together; that they are refused is the catalog's tests' business.
        assume(False)
        raise


def partition(region: str) -> str:
    return "aws-us-gov" if "gov" in region else "aws"


def image(region: str) -> str:
    return f"111122223333.dkr.ecr.{region}.amazonaws.com/inference-onnx:1"


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[ModelSpec, ...]:
    """Models whose artifacts are in S3: those of this repository would have to be built."""
    drawn = draw(st.lists(specs, min_size=MODELS, max_size=MODELS, unique_by=lambda spec: spec.name))
    return tuple(_servable(spec) for spec in sorted(drawn, key=lambda spec: spec.name))


def _servable(spec: ModelSpec) -> ModelSpec:
    away = Artifact(source=f"s3://weights/{spec.name}/", sha256="0" * 64)
    artifact = away if spec.artifact.source == "local" else spec.artifact
    changed: dict[str, Any] = {"artifact": artifact}
    if spec.target == "gpu":
        changed["gpu"] = spec.gpu.model_copy(update={"container": "onnx"})
    return spec.model_copy(update=changed)


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    # Shrinking would synthesize for minutes; what failed is printed as it is.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(environment=environments(), models=catalogs())
def test_any_valid_platform_satisfies_policy_and_fits(
    environment: Environment, models: tuple[ModelSpec, ...]
) -> None:
    assume(not list(capacity.problems(environment, models)))
    assume(not any(spec.sleeps and environment.region in WITHOUT_COMPONENTS for spec in models))
    with tempfile.TemporaryDirectory() as folder:
        assembly = assemble(Path(folder), Platform(environment, models))
        for pack in NAG_PACKS:
            found = [
                f"{violation['ruleName']} {construct['constructPath']}"
                for violation in assembly.nag(pack)["violations"]
                for construct in violation["violatingConstructs"]
            ]
            assert not found, "\n".join(found)
        for file in Path(folder).glob("*.template.json"):
            assert file.stat().st_size <= 1_000_000, file.name
    assert not list(_too_long(assembly))
    assert all(len(template["Resources"]) <= 500 for template in assembly.templates.values())


def test_every_field_of_an_environment_is_varied() -> None:
    varied = SAMPLE.keys() | {"probe", "ci"}
    # Quotas only refuse; they change no template.
    assert Environment.model_fields.keys() - varied <= {"quotas"}


def _too_long(assembly: Assembly) -> list[str]:
    """Texts of resources that their types' schemas do not take."""
    return [
        f"{resource.stack} {resource.logical_id} {name}: {value!r}"
        for resource in assembly.resources()
        for name, value in resource.properties.items()
        if isinstance(value, str)
        for allowed in [schema(resource.type).get("properties", {}).get(name, {})]
        if len(value) > allowed.get("maxLength", len(value)) or not _matches(allowed.get("pattern"), value)
    ]


def _matches(pattern: str | None, value: str) -> bool:
    try:
        return pattern is None or re.search(pattern, value) is not None
    except re.error:
        # A few patterns are of another dialect.
        return True
