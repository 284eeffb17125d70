"""A GPU model that sleeps while nobody calls it: what its callers see, what wakes it, and what does not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferctl import health
from inference_runtime import protocol
from inference_runtime.manifest import Manifest
from stacks.constructs.problems import WAKING_SECONDS
from tests.integration.local_aws.embedded import until
from tests.integration.platform import rights
from tests.integration.platform.changes.deploying import DOUBLE
from tests.integration.platform.changes.sleeping import API, NAME, SLEEPER, STACK, delete, sleeping
from tests.integration.platform.conftest import Platform

pytestmark = pytest.mark.changes


@pytest.fixture
def manifest(platform: Platform, tmp_path: Path) -> Iterator[Manifest]:
    with sleeping(platform, tmp_path) as published:
        yield published


def test_a_model_sleeps_until_it_is_called_and_again_when_nobody_calls_it_and_goes_without_a_trace(
    platform: Platform, manifest: Manifest
) -> None:
    sagemaker, scaling = platform.aws("sagemaker"), platform.aws("application-autoscaling")

    def copies() -> dict[str, int]:
        found = sagemaker.describe_inference_component(InferenceComponentName=NAME)
        counts: dict[str, int] = found["RuntimeConfig"]
        return counts

    asleep = {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
    # A deployment starts a copy, to show that the model can: nobody calls it, and it falls asleep.
    until(lambda: copies() == asleep)

    # Looking at it wakes nothing.
    looked = platform.call("GET", "/v2/models/sleeper")
    assert (looked.status_code, looked.json()) == (200, json.loads(protocol.model_metadata(manifest)))
    ready = platform.call("GET", "/v2/models/sleeper/ready")
    assert (ready.status_code, "sleeps" in ready.json()["detail"]) == (503, True)
    assert platform.call("GET", "/v2/health/ready").json() == {"ready": True}
    [state] = health.models(platform.deployed.aws, "local", [SLEEPER])
    assert state.status == "Asleep"
    activities = scaling.describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=f"inference-component/{NAME}"
    )["ScalingActivities"]
    assert [one["Description"] for one in activities] == ["Setting desired copy count to 0."]

    # Calling it does: the caller is told how long that takes.
    answer = platform.infer("sleeper", DOUBLE)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(WAKING_SECONDS))
    assert answer.json()["type"] == "urn:inference-platform:problem:model-unavailable"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert NAME not in answer.text

    statuses = set()

    def woken() -> bool:
        nonlocal answer
        answer = platform.infer("sleeper", DOUBLE)
        statuses.add(answer.status_code)
        return answer.status_code == 200

    until(woken)
    assert statuses == {503, 200}
    assert answer.json()["outputs"][0]["data"] == [2, -5]
    # Who knocked while it woke has woken no second copy.
    assert copies() == {"DesiredCopyCount": 1, "CurrentCopyCount": 1}
    assert platform.call("GET", "/v2/models/sleeper/ready").status_code == 200

    until(lambda: copies() == asleep)
    until(
        lambda: platform.aws("s3").list_objects_v2(
            Bucket="inference-local-data-000000000000-us-east-1", Prefix=f"captures/{NAME}/AllTraffic/"
        )["KeyCount"]
    )
    ours = [role for role in rights.roles(platform) if role.startswith((STACK, f"{API}-Catalog"))]
    assert len(ours) == 3  # the catalog, what runs the model, and what tries its versions
    assert not set().union(*(rights.refused(platform, role, platform.deployed_at) for role in ours))

    delete(platform)
    assert sagemaker.list_inference_components(NameContains=NAME)["InferenceComponents"] == []
    assert sagemaker.list_endpoints(NameContains=NAME)["Endpoints"] == []
    targets = scaling.describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[f"inference-component/{NAME}"]
    )
    assert targets["ScalableTargets"] == []
