"""What starts releases, and what stores validated uploads, as S3, Step Functions and DynamoDB see them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest

from inference_runtime.admission import fingerprint
from inference_runtime.manifest import FILE_NAME, Artifact
from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws
from tests.unit.runtime import tiny

PREFIX = "incoming/doubler/1.1.0"


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    variables = {
        "ENVIRONMENT": "test",
        "MODELS_BUCKET": "models",
        "TABLE": "releases",
        "LIVE_PARAMETER": "/models/{model}/live",
        "GROUP_PREFIX": "inference-test-",
        "GROUPS": '{"Winery": "wine"}',
    }
    with mocked_aws(monkeypatch, **variables):
        boto3.client("s3").create_bucket(Bucket="models")
        boto3.client("iam").create_role(RoleName="machine", AssumeRolePolicyDocument="{}")
        machine = boto3.client("stepfunctions").create_state_machine(
            name="inference-test-release",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/machine",
        )
        monkeypatch.setenv("MACHINE", machine["stateMachineArn"])
        boto3.client("dynamodb").create_table(
            TableName="releases",
            KeySchema=[
                {"AttributeName": "model", "KeyType": "HASH"},
                {"AttributeName": "entry", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("model", "entry")
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield


@pytest.fixture
def intake() -> ModuleType:
    return imported("intake")


@pytest.fixture
def store() -> ModuleType:
    return imported("intake", "store")


def upload(artifact: Artifact, prefix: str = PREFIX, **metadata: str) -> None:
    s3 = boto3.client("s3")
    for name in artifact.manifest.files:
        s3.upload_file(str(artifact.folder / name), "models", f"{prefix}/{name}")
    content = (artifact.folder / FILE_NAME).read_bytes()
    s3.put_object(Bucket="models", Key=f"{prefix}/{FILE_NAME}", Body=content, Metadata=metadata)


def came(
    key: str = f"{PREFIX}/{FILE_NAME}", *, sequencer: str = "1", after: timedelta = timedelta()
) -> dict[str, Any]:
    """S3's event about an object."""
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "time": (datetime.now(UTC) + after).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detail": {
            "bucket": {"name": "models"},
            "object": {"key": key, "sequencer": sequencer},
            "requester": "123456789012",
        },
    }


def started() -> list[dict[str, Any]]:
    """What executions were started with, by their names."""
    states = boto3.client("stepfunctions")
    [machine] = states.list_state_machines()["stateMachines"]
    releases = []
    for one in states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]:
        given = states.describe_execution(executionArn=one["executionArn"])["input"]
        releases.append({"name": one["name"], **json.loads(given)})
    return releases


def fail(name: str) -> None:
    """End an execution other than well."""
    states = boto3.client("stepfunctions")
    [machine] = states.list_state_machines()["stateMachines"]
    for one in states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]:
        if one["name"] == name:
            states.stop_execution(executionArn=one["executionArn"])


def test_an_upload_starts_the_release_that_its_metadata_describe(intake: ModuleType, tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "a")
    upload(artifact, who="ana@example.com", why="fewer%20errors%3A%20%C3%A4", breaking="true")
    intake.handler(came(), None)
    sha256 = artifact.manifest.sha256
    assert started() == [
        {
            "name": f"doubler-1_1_0-{sha256[:16]}",
            "model": "doubler",
            "version": "1.1.0",
            "sha256": sha256,
            "location": f"s3://models/{PREFIX}/",
            "source": "upload",
            "who": "ana@example.com",
            "why": "fewer errors: ä",
            "breaking": True,
        }
    ]


def test_a_pipelines_plain_upload_is_by_its_account_and_breaks_nothing(
    intake: ModuleType, tmp_path: Path
) -> None:
    upload(tiny.doubler(tmp_path / "a"))
    intake.handler(came(), None)
    [release] = started()
    assert (release["who"], release["why"], release["breaking"]) == ("account 123456789012", "", False)


def test_an_event_that_comes_twice_is_one_release(intake: ModuleType, tmp_path: Path) -> None:
    upload(tiny.doubler(tmp_path / "a"))
    event = came()
    intake.handler(event, None)
    intake.handler(event, None)
    assert len(started()) == 1
    fail(started()[0]["name"])
    intake.handler(event, None)
    assert len(started()) == 1


def test_other_bytes_are_another_release_which_decides_about_them(intake: ModuleType, tmp_path: Path) -> None:
    upload(tiny.doubler(tmp_path / "a"))
    intake.handler(came(), None)
    upload(tiny.doubler(tmp_path / "b", files={"words.txt": b"more"}))
    intake.handler(came(), None)
    # An event of the first upload that comes late finds the second: nothing more to do.
    intake.handler(came(), None)
    assert len({release["sha256"] for release in started()}) == len(started()) == 2


def test_an_upload_of_what_is_live_already_is_no_release(intake: ModuleType, tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "a")
    upload(artifact)
    intake.handler(came(), None)
    fail(started()[0]["name"])
    boto3.client("ssm").put_parameter(
        Name="/models/doubler/live", Value=artifact.manifest.sha256, Type="String"
    )
    intake.handler(came(sequencer="2", after=timedelta(seconds=5)), None)
    assert len(started()) == 1


def test_an_upload_of_what_was_refused_or_taken_back_is_another_try(
    intake: ModuleType, tmp_path: Path
) -> None:
    upload(tiny.doubler(tmp_path / "a"))
    intake.handler(came(), None)
    fail(started()[0]["name"])
    again = came(sequencer="2", after=timedelta(seconds=5))
    intake.handler(again, None)
    intake.handler(again, None)
    assert len(started()) == 2
    assert max(len(release["name"]) for release in started()) <= 80


@pytest.mark.parametrize(
    "key", [f"{PREFIX}/tokenizer/{FILE_NAME}", f"incoming/{FILE_NAME}", f"{PREFIX}/{FILE_NAME}"]
)
def test_what_is_no_manifest_of_an_upload_or_was_withdrawn_starts_nothing(
    intake: ModuleType, key: str
) -> None:
    intake.handler(came(key), None)
    assert started() == []


def test_a_version_with_build_metadata_is_read_from_its_key(intake: ModuleType, tmp_path: Path) -> None:
    upload(tiny.doubler(tmp_path / "a"), "incoming/doubler/1.0.0+b.1")
    intake.handler(came(f"incoming/doubler/1.0.0+b.1/{FILE_NAME}"), None)
    intake.handler(came(f"incoming/doubler/1.0.0%2Bb.1/{FILE_NAME}"), None)
    [release] = started()
    assert release["version"] == "1.0.0+b.1"


def test_what_cannot_be_read_as_a_manifest_is_released_to_be_refused(intake: ModuleType) -> None:
    boto3.client("s3").put_object(Bucket="models", Key=f"{PREFIX}/{FILE_NAME}", Body=b"\x00 no JSON")
    intake.handler(came(), None)
    [release] = started()
    assert release["version"] == "1.1.0"


def test_an_event_of_another_kind_is_no_event_for_it(intake: ModuleType) -> None:
    with pytest.raises(ValueError, match="means nothing here"):
        intake.handler({"source": "aws.events", "detail": {}}, None)


def test_a_group_is_of_the_model_that_names_it_or_that_it_is_named_after(intake: ModuleType) -> None:
    groups = ("inference-test-doubler", "Winery", "inference-test-wine", "somebody-elses")
    assert [intake._model_of(group) for group in groups] == ["doubler", "wine", None, None]


# Storing


def release_of(artifact: Artifact, version: str = "1.1.0", prefix: str = PREFIX) -> dict[str, Any]:
    s3 = boto3.client("s3")
    etags = {
        name: s3.head_object(Bucket="models", Key=f"{prefix}/{name}")["ETag"]
        for name in (*artifact.manifest.files, FILE_NAME)
    }
    return {
        "model": "doubler",
        "version": version,
        "sha256": artifact.manifest.sha256,
        "location": f"s3://models/{prefix}/",
        "validation": {"validated": {"fingerprint": fingerprint(etags)}},
    }


def keys(prefix: str) -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket="models", Prefix=prefix)
    return [entry["Key"].removeprefix(prefix) for entry in found.get("Contents", [])]


def test_what_was_validated_is_stored_whole_and_once(store: ModuleType, tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "a", files={"words.txt": b"a"})
    upload(artifact)
    release = release_of(artifact)
    store.handler(release, None)
    folder = f"doubler/{artifact.manifest.sha256}/"
    assert sorted(keys(folder)) == ["manifest.json", "model.onnx", "words.txt"]
    boto3.client("s3").delete_object(Bucket="models", Key=f"{PREFIX}/words.txt")
    store.handler(release, None)


def test_a_version_is_never_other_bytes(store: ModuleType, tmp_path: Path) -> None:
    first = tiny.doubler(tmp_path / "a")
    upload(first)
    store.handler(release_of(first), None)
    other = tiny.doubler(tmp_path / "b", files={"words.txt": b"b"})
    upload(other)
    with pytest.raises(store.Refused, match=r"version 1.1.0 of doubler is .*, and never changes"):
        store.handler(release_of(other), None)
    assert keys(f"doubler/{other.manifest.sha256}/") == []
    store.handler(release_of(other, version="1.2.0"), None)


def test_the_version_that_a_deployment_brought_is_not_replaced_either(
    store: ModuleType, tmp_path: Path
) -> None:
    live = tiny.doubler(tmp_path / "live")
    upload(live, f"doubler/{live.manifest.sha256}")
    other = tiny.doubler(tmp_path / "b", files={"words.txt": b"b"})
    upload(other)
    release = release_of(other, version=live.manifest.version) | {"previous": live.manifest.sha256}
    with pytest.raises(store.Refused, match="and never changes"):
        store.handler(release, None)


@pytest.mark.parametrize("name", ["words.txt", FILE_NAME])
def test_what_changed_after_it_was_validated_is_not_stored(
    store: ModuleType, tmp_path: Path, name: str
) -> None:
    artifact = tiny.doubler(tmp_path / "a", files={"words.txt": b"a"})
    upload(artifact)
    release = release_of(artifact)
    boto3.client("s3").put_object(Bucket="models", Key=f"{PREFIX}/{name}", Body=b"x")
    with pytest.raises(store.Refused, match="has changed since it was validated"):
        store.handler(release, None)
    assert keys(f"doubler/{artifact.manifest.sha256}/") == []
