"""The custom resource that gives a model its first version, as CloudFormation and S3 see it."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import custom_resource
import pytest

from inference_runtime.manifest import Artifact
from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws
from tests.unit.runtime import tiny

LIVE = "/inference/test/models/doubler/live"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mocked_aws(monkeypatch):
        for bucket in ("assets", "models"):
            s3().create_bucket(Bucket=bucket)
        yield


def s3() -> Any:
    return boto3.client("s3")


def keys() -> list[str]:
    return [entry["Key"] for entry in s3().list_objects_v2(Bucket="models").get("Contents", [])]


def live() -> str:
    value: str = boto3.client("ssm").get_parameter(Name=LIVE)["Parameter"]["Value"]
    return value


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny.doubler(tmp_path / "model", files={"vocab.txt": b"words"})


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The function, with CloudFormation's side of the conversation kept in `answers`."""
    module = imported("publish_artifact")
    module.__dict__["answers"] = answers = []

    def urlopen(request: Any, **options: Any) -> io.BytesIO:
        assert (request.method, request.full_url) == ("PUT", "https://cloudformation.test/answer?signature=x")
        assert request.headers == {"Content-type": ""}
        answers.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(custom_resource, "urlopen", urlopen)
    return module


def event(artifact: Artifact, request_type: str = "Create", **properties: str) -> dict[str, Any]:
    """CloudFormation's request, once the artifact's zip is in the assets bucket."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as asset:
        for path in artifact.folder.iterdir():
            asset.write(path, path.name)
    s3().put_object(Bucket="assets", Key="asset.zip", Body=archive.getvalue())
    return {
        "RequestType": request_type,
        "ResponseURL": "https://cloudformation.test/answer?signature=x",
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Publish",
        "ResourceProperties": {
            "ServiceToken": "arn",
            "Model": "doubler",
            "Sha256": artifact.manifest.sha256,
            "AssetBucket": "assets",
            "AssetKey": "asset.zip",
            "ModelsBucket": "models",
            "LiveParameter": LIVE,
        }
        | properties,
    }


def answer(publisher: ModuleType, request: dict[str, Any]) -> dict[str, str]:
    publisher.handler(request, None)
    result: dict[str, str] = publisher.__dict__["answers"][-1]
    assert (
        result.items() >= {"StackId": "stack", "RequestId": "request", "LogicalResourceId": "Publish"}.items()
    )
    return result


def test_an_artifact_is_unpacked_and_made_live(publisher: ModuleType, artifact: Artifact) -> None:
    result = answer(publisher, event(artifact))
    prefix = f"doubler/{artifact.manifest.sha256}"
    assert result["Status"] == "SUCCESS"
    assert result["PhysicalResourceId"] == f"s3://models/{prefix}/"
    assert keys() == [f"{prefix}/{name}" for name in ("manifest.json", "model.onnx", "vocab.txt")]
    for path in artifact.folder.iterdir():
        stored = s3().get_object(Bucket="models", Key=f"{prefix}/{path.name}")["Body"].read()
        assert stored == path.read_bytes()
    assert live() == artifact.manifest.sha256


def test_the_version_that_is_live_stays_live(publisher: ModuleType, artifact: Artifact) -> None:
    boto3.client("ssm").put_parameter(Name=LIVE, Value="released", Type="String")
    assert answer(publisher, event(artifact, "Update"))["Status"] == "SUCCESS"
    assert live() == "released"


def test_what_is_complete_is_not_uploaded_again(publisher: ModuleType, artifact: Artifact) -> None:
    answer(publisher, event(artifact))
    request = event(artifact, "Update")
    s3().delete_object(Bucket="assets", Key="asset.zip")
    assert answer(publisher, request)["Status"] == "SUCCESS"


@pytest.mark.parametrize("uploads", [1, 2])
def test_an_upload_that_broke_off_is_completed(
    publisher: ModuleType, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, uploads: int
) -> None:
    client = s3()
    upload = client.upload_file
    left = iter(range(uploads))

    def breaks_off(*args: Any) -> None:
        if next(left, None) is None:
            raise ConnectionError("network gone")
        upload(*args)

    client.upload_file = breaks_off
    with monkeypatch.context() as broken:
        broken.setattr(publisher.boto3, "client", lambda service: client)
        result = answer(publisher, event(artifact))
    assert (result["Status"], result["Reason"]) == ("FAILED", "ConnectionError: network gone")
    assert len(keys()) == uploads

    assert answer(publisher, event(artifact))["Status"] == "SUCCESS"
    assert len(keys()) == 3


def test_a_corrupt_artifact_is_refused_by_name_and_nothing_is_uploaded(
    publisher: ModuleType, artifact: Artifact
) -> None:
    (artifact.folder / "vocab.txt").write_bytes(b"sword")
    result = answer(publisher, event(artifact))
    assert result["Status"] == "FAILED"
    assert "vocab.txt: SHA-256 is" in result["Reason"]
    assert keys() == []


def test_an_artifact_of_another_model_is_refused(publisher: ModuleType, artifact: Artifact) -> None:
    result = answer(publisher, event(artifact, Model="tripler"))
    assert result["Status"] == "FAILED"
    assert "is of 'doubler', expected 'tripler'" in result["Reason"]


def test_a_missing_property_is_named(publisher: ModuleType, artifact: Artifact) -> None:
    result = answer(publisher, event(artifact, AssetKey=""))
    assert (result["Status"], result["Reason"]) == ("FAILED", "ValueError: ResourceProperties lack AssetKey")


def test_deleting_the_resource_deletes_nothing(publisher: ModuleType, artifact: Artifact) -> None:
    created = answer(publisher, event(artifact))
    before = keys()
    request = event(artifact, "Delete") | {"PhysicalResourceId": created["PhysicalResourceId"]}
    deleted = answer(publisher, request)
    assert (deleted["Status"], deleted["PhysicalResourceId"]) == ("SUCCESS", created["PhysicalResourceId"])
    assert keys() == before
    assert live() == artifact.manifest.sha256


def from_folder(artifact: Artifact, **properties: str) -> dict[str, Any]:
    """CloudFormation's request for an artifact whose files are already in S3, in a bucket of the team's."""
    s3().create_bucket(Bucket="team")
    for path in artifact.folder.iterdir():
        s3().upload_file(str(path), "team", f"weights/v1/{path.name}")
    request = event(artifact, SourceUri="s3://team/weights/v1/", **properties)
    for name in ("AssetBucket", "AssetKey"):
        del request["ResourceProperties"][name]
    return request


def test_an_artifact_that_is_already_in_s3_is_copied_there(publisher: ModuleType, artifact: Artifact) -> None:
    publisher.handler(from_folder(artifact), None)
    assert publisher.answers[0]["Status"] == "SUCCESS", publisher.answers
    prefix = f"doubler/{artifact.manifest.sha256}"
    assert keys() == sorted(f"{prefix}/{path.name}" for path in artifact.folder.iterdir())
    body = s3().get_object(Bucket="models", Key=f"{prefix}/vocab.txt")["Body"].read()
    assert body == b"words"
    assert live() == artifact.manifest.sha256


def test_a_folder_with_another_manifest_or_a_short_file_publishes_nothing(
    publisher: ModuleType, artifact: Artifact
) -> None:
    request = from_folder(artifact)
    publisher.handler(
        request | {"ResourceProperties": request["ResourceProperties"] | {"Sha256": "0" * 64}}, None
    )
    s3().put_object(Bucket="team", Key="weights/v1/vocab.txt", Body=b"")
    publisher.handler(request, None)
    assert [answer["Status"] for answer in publisher.answers] == ["FAILED", "FAILED"]
    assert "0" * 64 in publisher.answers[0]["Reason"]
    assert "vocab.txt has 0 bytes, the manifest says 5" in publisher.answers[1]["Reason"]
    assert not [key for key in keys() if key.endswith("manifest.json")]
