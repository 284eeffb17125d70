"""A version that may not be released changes nothing that serves, however it was published."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import MODELS, live, serving
from tests.integration.platform.versions import of_artifact, over, upload, version_of

pytestmark = pytest.mark.changes

MODEL = "wine-cultivar"
WRONG = b'{"outputs": {"cultivar": {"equals": ["barolo", "barolo", "barolo"]}}}'


def test_a_pipelines_upload_that_answers_wrongly_is_refused_and_another_upload_tried_again(
    platform: Platform, tmp_path: Path
) -> None:
    before = live(platform, MODEL)
    wrong = version_of(MODEL, tmp_path / "wrong", "1.9.0", **{"expected.json": WRONG})
    sha256 = wrong.manifest.sha256
    upload(platform, wrong, who="pipeline", why="a%20test")
    release = over(platform, MODEL, sha256)
    assert (release.status, release.version, release.source) == ("REFUSED", "1.9.0", "upload")
    assert (release.who, release.why) == ("pipeline", "a test")
    assert "cultivar: is ['barolo', 'grignolino', 'barbera'], expected ['barolo'" in release.reason
    stored = platform.aws("s3").list_objects_v2(Bucket=MODELS, Prefix=f"{MODEL}/{sha256}/")
    assert "Contents" not in stored
    upload(platform, wrong)
    assert over(platform, MODEL, sha256, count=2).status == "REFUSED"
    assert live(platform, MODEL) == serving(platform, MODEL) == before


def test_the_command_follows_the_refusal_of_a_version_with_other_bytes(
    platform: Platform, tmp_path: Path
) -> None:
    """What only the release knows: the command could not tell that a file would change under it."""
    before = live(platform, MODEL)
    other = version_of(MODEL, tmp_path / "other", "1.0.0", **{"words.txt": b"other bytes"})
    told = platform.inferctl("publish", MODEL, str(other.folder))
    assert told.returncode == 2
    assert "version 1.0.0 is" in told.stderr
    upload(platform, other)
    release = over(platform, MODEL, other.manifest.sha256)
    assert release.status == "REFUSED"
    assert "and never changes" in release.reason
    broken = version_of(MODEL, tmp_path / "broken", "1.9.1", **{"expected.json": WRONG})
    told = platform.inferctl("publish", MODEL, str(broken.folder), "--why", "a test", "--json")
    assert told.returncode == 1
    assert "REFUSED. the golden request is not answered" in json.loads(told.stderr.splitlines()[-1])["error"]
    assert live(platform, MODEL) == serving(platform, MODEL) == before


@pytest.fixture
def group(platform: Platform) -> str:
    name = f"inference-local-{MODEL}"
    platform.aws("sagemaker").create_model_package_group(ModelPackageGroupName=name)
    return name


def register(platform: Platform, group: str, folder: str) -> str:
    source = {"S3Uri": folder, "S3DataType": "S3Prefix", "CompressionType": "None"}
    specification = {"Containers": [{"Image": "any", "ModelDataSource": {"S3DataSource": source}}]}
    created = platform.aws("sagemaker").create_model_package(
        ModelPackageGroupName=group, InferenceSpecification=specification
    )
    arn: str = created["ModelPackageArn"]
    return arn


def test_an_approved_package_that_may_not_be_released_is_told_so(
    platform: Platform, tmp_path: Path, group: str
) -> None:
    before, sagemaker = live(platform, MODEL), platform.aws("sagemaker")
    wrong = version_of(MODEL, tmp_path / "wrong", "1.9.2", **{"expected.json": WRONG})
    packages = {
        register(platform, group, upload(platform, wrong, f"registry/{MODEL}/1.9.2/")): "golden request",
        register(platform, group, "s3://elsewhere/model/"): "is no place for artifacts",
    }
    for package in packages:
        for _ in range(2):
            sagemaker.update_model_package(
                ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="looks good"
            )

    def stage(package: str) -> dict[str, Any]:
        described: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=package)
        return described

    for package, reason in packages.items():
        until(lambda package=package: "ModelLifeCycle" in stage(package), timeout=120)
        found = stage(package)
        assert (found["ModelLifeCycle"]["Stage"], found["ModelLifeCycle"]["StageStatus"]) == (
            "local",
            "Refused",
        )
        assert reason in found["ModelLifeCycle"]["StageDescription"]
        assert found["ModelApprovalStatus"] == "Approved"
    [release] = of_artifact(platform, MODEL, wrong.manifest.sha256)
    assert (release.source, release.why) == ("registry", "looks good")
    assert release.who.endswith(":root")
    assert live(platform, MODEL) == serving(platform, MODEL) == before
