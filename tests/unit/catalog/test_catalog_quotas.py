"""What a catalog asks of the account's quotas, and what it is told when that is too much."""

from pathlib import Path

import pytest

from catalog import CatalogError, load_platform
from tests.unit.catalog.test_catalog_files import ENVIRONMENT

CONTAINERS = "containers: {onnx: {build: true}}\n"


def problems(root: Path, quotas: str, *models: str) -> list[str]:
    """What a platform of these models is refused for."""
    files = {
        "config/dev.yaml": ENVIRONMENT + CONTAINERS + quotas,
        "inference_containers/onnx/Dockerfile": "FROM x",
    }
    for number, model in enumerate(models):
        common = f"name: model-{number}\ndescription: One.\nowner: ml\nversion: 1.0.0\n"
        files[f"models/model-{number}/model.yaml"] = common + model
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    try:
        load_platform(root, "dev")
    except CatalogError as error:
        return str(error).splitlines()
    return []


def cpu(reserved: int) -> str:
    return f"target: cpu\ncpu: {{reserved_concurrency: {reserved}}}\n"


def gpu(most: int) -> str:
    return f"target: gpu\ngpu: {{instance_type: ml.g5.xlarge}}\nscaling: {{max: {most}}}\n"


def test_reserved_concurrency_leaves_lambda_what_it_keeps(tmp_path: Path) -> None:
    assert problems(tmp_path, "", cpu(500), cpu(400)) == []
    (line,) = problems(tmp_path, "", cpu(500), cpu(401))
    assert line.startswith("config/dev.yaml:1: quotas.lambda_concurrency: the models reserve 901 ")
    assert "L-B99A9384" in line
    assert problems(tmp_path, "quotas: {lambda_concurrency: 1001}\n", cpu(500), cpu(401)) == []


def test_instances_are_counted_per_type_where_the_quota_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "", gpu(50), gpu(50)) == []
    assert problems(tmp_path, "quotas: {instances: {ml.g5.xlarge: 7}}\n", gpu(3), gpu(4)) == []
    (line,) = problems(tmp_path, "quotas: {instances: {ml.g5.xlarge: 6}}\n", gpu(3), gpu(4))
    assert line.startswith("config/dev.yaml:1: quotas.instances.ml.g5.xlarge: the models may scale to 7 ")
    assert "`ml.g5.xlarge for endpoint usage`" in line
    assert "twice while it is updated" in line


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("ml.g5.3xlarge: 1", "is not an instance type of SageMaker endpoints; the nearest are ml.g5."),
        ("ml.g5.xlarge: -1", "must be >= 0"),
    ],
)
def test_a_quota_of_nothing_is_refused(tmp_path: Path, entry: str, reason: str) -> None:
    (line,) = problems(tmp_path, f"quotas: {{instances: {{{entry}}}}}\n")
    assert line.startswith(f"config/dev.yaml:7: quotas.instances.{entry.split(':')[0]}: ")
    assert reason in line
