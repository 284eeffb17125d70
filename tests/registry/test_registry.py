"""Amazon's own SDK registers and approves a version, which is then live, and invokes what serves."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import local_aws
from app import ROOT
from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.conftest import platform as platform
from tests.integration.platform.releasing import live, serving
from tests.integration.platform.versions import over, upload, version_of

pytestmark = pytest.mark.registry

CPU, GPU = "wine-cultivar", "text-embedding"
PYTHON = ROOT / "build" / "sagemaker" / "bin" / "python"


@pytest.fixture
def variables(platform: Platform) -> dict[str, str]:
    """What leads the SDK to the embedded AWS, and nowhere else."""
    state = local_aws.status(home=platform.home)
    assert state is not None
    return {**os.environ, **local_aws.environment(state)}


def sdk(variables: dict[str, str], **settings: str) -> str:
    """What the SDK's script printed last."""
    assert PYTHON.exists(), "run `make registry-test`"
    script = Path(__file__).with_name("sdk.py")
    run = subprocess.run(
        [PYTHON, script, json.dumps(settings)], capture_output=True, text=True, env=variables, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()[-1]


def test_a_version_that_the_sdk_registers_and_approves_goes_live(
    platform: Platform, variables: dict[str, str], tmp_path: Path
) -> None:
    version = version_of(CPU, tmp_path / "new", "1.2.0")
    folder = upload(platform, version, f"registry/{CPU}/1.2.0/")
    package = sdk(variables, do="approve", group=f"inference-local-{CPU}", folder=folder)
    release = over(platform, CPU, version.manifest.sha256)
    assert (release.status, release.reason, release.source) == ("LIVE", "", "registry")
    assert (release.version, release.why) == ("1.2.0", "better recall")
    assert serving(platform, CPU) == live(platform, CPU) == version.manifest.sha256
    sagemaker = platform.aws("sagemaker")
    until(lambda: "ModelLifeCycle" in sagemaker.describe_model_package(ModelPackageName=package))
    found = sagemaker.describe_model_package(ModelPackageName=package)
    assert found["ModelLifeCycle"]["StageStatus"] == "Released"
    assert "1.2.0" in found["ModelLifeCycle"]["StageDescription"]


def test_the_sdk_invokes_what_serves(platform: Platform, variables: dict[str, str]) -> None:
    sample = (ROOT / "models" / GPU / "sample.json").read_text()
    said = sdk(variables, do="invoke", endpoint=f"inference-local-{GPU}", body=sample)
    assert [output["name"] for output in json.loads(said)["outputs"]] == ["embedding"]
