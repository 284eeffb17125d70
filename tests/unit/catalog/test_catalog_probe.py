"""What the probe may be told to do, and what it is told when it could not."""

from pathlib import Path

import pytest

from catalog import CatalogError, load_platform

ENVIRONMENT = """\
name: dev
account: "111122223333"
region: us-east-1
availability_zones: [us-east-1a, us-east-1b]
network: {cidr: 10.0.0.0/16}
clients:
  - {name: caller, scopes: [invoke]}
  - {name: operator, scopes: [admin]}
containers: {onnx: {build: true}}
"""
MODEL = """\
name: tiny
description: A tiny model.
owner: ml
target: cpu
version: 1.0.0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    for name in ("tiny", "bare", "dormant"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.yaml").write_text(MODEL.replace("tiny", name, 1))
    sleeps = MODEL.replace("tiny", "dormant", 1).replace("target: cpu", "target: gpu")
    sleeps += "gpu: {instance_type: ml.g5.xlarge}\nscaling: {min: 0}\n"
    (tmp_path / "models" / "dormant" / "model.yaml").write_text(sleeps)
    (tmp_path / "inference_containers" / "onnx").mkdir(parents=True)
    (tmp_path / "inference_containers" / "onnx" / "Dockerfile").write_text("FROM x")
    for name in ("tiny", "dormant"):
        for file in ("sample.json", "expected.json"):
            (tmp_path / "models" / name / file).write_text("{}")
    return tmp_path


def load(root: Path, probe: str) -> str:
    """What is said of a configuration with this probe; nothing if it is accepted."""
    (root / "config" / "dev.yaml").write_text(f"{ENVIRONMENT}probe: {probe}\n")
    try:
        load_platform(root, "dev")
    except CatalogError as error:
        return str(error)
    return ""


def test_a_probe_asks_models_that_have_a_sample(root: Path) -> None:
    assert load(root, "{client: caller, models: [tiny]}") == ""


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("{client: operator}", "probe.client: 'operator' is not allowed: must be one of the clients with"),
        ("{client: nobody}", "the scope 'invoke': caller"),
        ("{client: caller, models: [huge]}", "probe.models[0]: 'huge' is not allowed: must be a model"),
        ("{client: caller, models: [tiny, bare]}", "models/bare/ has no sample.json and no expected.json"),
        ("{client: caller, models: [dormant]}", "its scaling.min is 0, and the probe would keep it awake"),
        ("{client: caller, minutes: 0}", "probe.minutes"),
    ],
)
def test_a_probe_that_could_not_run_is_refused(root: Path, probe: str, said: str) -> None:
    assert said in load(root, probe)
