"""Releases of a model that sleeps: an inference component, whose copies SageMaker replaces one by one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.local_aws.embedded import until
from tests.integration.platform.changes.deploying import DOUBLE
from tests.integration.platform.changes.sleeping import NAME, sleeping
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import Callers, ended, live, settings, start
from tests.integration.platform.versions import stored

pytestmark = pytest.mark.changes

MODEL = "sleeper"
BREAKS_WHERE_IT_SERVES = """
def preprocess(inputs, state):
    # What clients ask: not the warm-up, and nobody who tries it before the release.
    if (inputs["x"] == -2.5).any():
        raise RuntimeError("a bug")
    return inputs
"""


@pytest.fixture
def artifact(platform: Platform, tmp_path: Path) -> Iterator[Path]:
    """The folder of the live version, of which two copies run."""
    with sleeping(platform, tmp_path, released=True):
        scaling = platform.aws("application-autoscaling")
        target = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"inference-component/{NAME}",
            "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        }
        scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=2)
        until(lambda: copies(platform) == 2, timeout=120)
        yield tmp_path / "artifact"


def copies(platform: Platform) -> int:
    found = platform.aws("sagemaker").describe_inference_component(InferenceComponentName=NAME)
    in_service = found["InferenceComponentStatus"] == "InService"
    return int(found["RuntimeConfig"]["CurrentCopyCount"]) if in_service else 0


def runs(platform: Platform) -> str:
    """The artifact that the component says it runs."""
    answer = platform.aws("sagemaker-runtime").invoke_endpoint(
        EndpointName=NAME, InferenceComponentName=NAME, CustomAttributes="op=metadata",
        ContentType="application/json", Body=b"{}",
    )  # fmt: skip
    return str(json.load(answer["Body"])["parameters"]["artifact_sha256"])


def test_copies_are_replaced_one_by_one_and_come_back_when_an_alarm_rings(
    platform: Platform, artifact: Path
) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL, DOUBLE)
    assert runs(platform) == first
    good = stored(platform, MODEL, "1.1.0", like=artifact)
    with settings(platform, MODEL, bake_seconds=6), callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.1.0", good))
    assert (release.status, release.reason, release.previous) == ("LIVE", "", first)
    assert runs(platform) == live(platform, MODEL) == good
    assert callers.failures == []
    assert callers.versions.keys() >= {"1.1.0"}

    callers = Callers(platform, MODEL, DOUBLE)
    bad = stored(platform, MODEL, "1.2.0", like=artifact, handler=BREAKS_WHERE_IT_SERVES)
    with settings(platform, MODEL, bake_seconds=60), callers.calling():
        release = ended(platform, MODEL, start(platform, MODEL, "1.2.0", bad))
    assert release.status == "ROLLED_BACK"
    assert "requests failed" in release.reason
    # It was SageMaker's doing, for the release's alarm, before the second copy's turn.
    component = platform.aws("sagemaker").describe_inference_component(InferenceComponentName=NAME)
    assert "release-rejected" in component["FailureReason"]
    assert runs(platform) == live(platform, MODEL) == good
    # One of two copies, with what chance may add.
    assert 0 < len(callers.failures) < 0.7 * callers.calls
    assert platform.infer(MODEL, DOUBLE).json()["model_version"] == "1.1.0"
