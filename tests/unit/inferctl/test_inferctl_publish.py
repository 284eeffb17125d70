"""`inferctl publish`, with moto's S3, SSM, STS and DynamoDB; the platform's test releases what it uploads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inferctl import cli as command_line
from inferctl import publishing
from inferctl.cli import cli
from inference_runtime.manifest import FILE_NAME, Artifact, TensorSpec, verify, write

Clients = Callable[[str], Any]

MODEL_YAML = """
name: doubler
description: Doubles numbers.
owner: ml
target: cpu
version: 1.0.0
"""
LIVE = "/inference/dev/models/doubler/live"
BUCKET = "inference-dev-models-123456789012-us-east-1"
X, Y = TensorSpec("x", "FP32", (-1,)), TensorSpec("y", "FP32", (-1,))


def artifact(
    folder: Path,
    version: str = "1.1.0",
    name: str = "doubler",
    inputs: tuple[TensorSpec, ...] = (X,),
    code: str = "# ours",
) -> Artifact:
    folder.mkdir()
    for file, content in {"handler.py": code, "sample.json": "{}", "expected.json": "{}"}.items():
        (folder / file).write_text(content)
    write(folder, name=name, version=version, model=None, handler="handler.py", inputs=inputs, outputs=[Y])
    return verify(folder)


@pytest.fixture
def deployed(aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """An environment in which version 1.0.0 is live."""
    (tmp_path / "models" / "doubler").mkdir(parents=True)
    (tmp_path / "models" / "doubler" / "model.yaml").write_text(MODEL_YAML)
    (tmp_path / "config").symlink_to(command_line.ROOT / "config")
    monkeypatch.setattr(command_line, "ROOT", tmp_path)
    monkeypatch.setattr(publishing, "POLL_SECONDS", 0.01)
    live = artifact(tmp_path / "live", "1.0.0")
    aws("s3").create_bucket(Bucket=BUCKET)
    for file in (*live.manifest.files, FILE_NAME):
        key = f"doubler/{live.manifest.sha256}/{file}"
        aws("s3").upload_file(str(live.folder / file), BUCKET, key)
    aws("ssm").put_parameter(Name=LIVE, Value=live.manifest.sha256, Type="String")
    aws("dynamodb").create_table(
        TableName="inference-dev-releases",
        KeySchema=[
            {"AttributeName": "model", "KeyType": "HASH"},
            {"AttributeName": "entry", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("model", "entry")],
        BillingMode="PAY_PER_REQUEST",
    )
    return live


def publish(*arguments: object) -> Result:
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli, ["--env", "dev", "publish", "doubler", *given], prog_name="inferctl")


def uploaded(aws: Clients) -> list[str]:
    found = aws("s3").list_objects_v2(Bucket=BUCKET, Prefix="incoming/").get("Contents", [])
    return [entry["Key"] for entry in found]


def note(aws: Clients, sha256: str, status: str, started: str, **more: str) -> None:
    """A release in the history, as the state machine writes it, and its execution, which is over."""
    states, iam = aws("stepfunctions"), aws("iam")
    if not states.list_state_machines()["stateMachines"]:
        iam.create_role(RoleName="machine", AssumeRolePolicyDocument="{}")
        states.create_state_machine(
            name="inference-dev-release",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/machine",
        )
    [machine] = states.list_state_machines()["stateMachines"]
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"])["executionArn"]
    states.stop_execution(executionArn=execution)
    entry = {
        "model": "doubler", "entry": f"release#{started}#1.1.0", "version": "1.1.0", "sha256": sha256,
        "status": status, "started": started, "ended": started, "execution": execution,
    }  # fmt: skip
    item = {name: {"S": value} for name, value in {**entry, **more}.items()}
    aws("dynamodb").put_item(TableName="inference-dev-releases", Item=item)


@pytest.mark.usefixtures("deployed")
def test_everything_is_uploaded_with_the_manifest_last_and_who_and_why(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = artifact(tmp_path / "new")
    given = publish(new.folder, "--no-wait", "--why", "fewer errors: ä", "--json")
    assert given.exit_code == 0, given.output
    assert json.loads(given.stdout) == {
        "model": "doubler",
        "version": "1.1.0",
        "sha256": new.manifest.sha256,
        "release": None,
    }
    names = ["expected.json", "handler.py", FILE_NAME, "sample.json"]
    assert uploaded(aws) == [f"incoming/doubler/1.1.0/{name}" for name in names]
    head = aws("s3").head_object(Bucket=BUCKET, Key=f"incoming/doubler/1.1.0/{FILE_NAME}")
    assert head["Metadata"]["why"] == "fewer%20errors%3A%20%C3%A4"
    assert head["Metadata"]["breaking"] == "false"
    assert head["Metadata"]["who"].startswith("arn%3Aaws%3A")


@pytest.mark.usefixtures("deployed")
def test_an_upload_that_breaks_off_leaves_no_manifest(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = artifact(tmp_path / "new")
    (new.folder / "sample.json").unlink()
    monkeypatch.setattr(publishing, "verify", lambda folder: new)
    assert publish(new.folder, "--no-wait").exit_code != 0
    assert f"incoming/doubler/1.1.0/{FILE_NAME}" not in uploaded(aws)


@pytest.mark.usefixtures("deployed")
def test_a_folder_in_s3_is_copied_there(aws: Clients, tmp_path: Path) -> None:
    new = artifact(tmp_path / "new")
    aws("s3").create_bucket(Bucket="pipeline")
    for file in (*new.manifest.files, FILE_NAME):
        aws("s3").upload_file(str(new.folder / file), "pipeline", f"out/7/{file}")
    assert publish("s3://pipeline/out/7/", "--no-wait").exit_code == 0
    assert len(uploaded(aws)) == 4
    missing = publish("s3://pipeline/out/8/", "--no-wait")
    assert "s3://pipeline/out/8/manifest.json does not exist" in missing.stderr


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("status", "reason", "exit_code", "said"),
    [
        ("LIVE", "", 0, "is live."),
        ("REFUSED", "opset 6, allowed are 7 to 26", 1, "is not live: REFUSED. opset 6, allowed are 7 to 26"),
        ("ROLLED_BACK", "too slow", 1, "is not live: ROLLED_BACK. too slow"),
    ],
)
def test_the_release_is_followed_to_its_end(
    aws: Clients, tmp_path: Path, status: str, reason: str, exit_code: int, said: str
) -> None:
    new = artifact(tmp_path / "new")
    note(aws, new.manifest.sha256, "REFUSED", "2020-01-01T00:00:00+00:00", reason="an earlier upload's")
    note(aws, new.manifest.sha256, status, "2999-01-01T00:00:00+00:00", reason=reason)
    given = publish(new.folder)
    assert given.exit_code == exit_code
    assert said in given.output


@pytest.mark.usefixtures("deployed")
def test_an_upload_that_starts_nothing_is_said(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "START_SECONDS", 0.05)
    given = publish(artifact(tmp_path / "new").folder)
    assert given.exit_code == 1
    assert "no release has started" in given.stderr


def test_what_is_live_already_is_not_uploaded_again(aws: Clients, deployed: Artifact) -> None:
    given = publish(deployed.folder)
    assert (given.exit_code, uploaded(aws)) == (0, [])
    assert "is live already" in given.output


@pytest.mark.usefixtures("deployed")
def test_what_the_validator_would_refuse_is_not_uploaded(aws: Clients, tmp_path: Path) -> None:
    changed = artifact(tmp_path / "changed", inputs=(TensorSpec("x", "FP64", (-1,)),))
    assert "input 'x' was FP32[-1], and takes only FP64[-1]" in publish(changed.folder).stderr
    same = artifact(tmp_path / "same", "1.0.0", code="# other bytes")
    assert "and never changes" in publish(same.folder).stderr
    claim = {"model": {"S": "doubler"}, "entry": {"S": "version#1.1.0"}, "sha256": {"S": "f" * 64}}
    aws("dynamodb").put_item(TableName="inference-dev-releases", Item=claim)
    assert "version 1.1.0 is ffffffffffff" in publish(artifact(tmp_path / "claimed").folder).stderr
    assert uploaded(aws) == []
    assert publish(changed.folder, "--breaking", "--no-wait").exit_code == 2  # 1.1.0 is claimed


@pytest.mark.usefixtures("deployed")
def test_what_is_no_artifact_of_the_model_is_refused_by_name(aws: Clients, tmp_path: Path) -> None:
    damaged = artifact(tmp_path / "damaged")
    (damaged.folder / "handler.py").write_text("# changed")
    (tmp_path / "empty").mkdir()
    for source, said in (
        (damaged.folder, "handler.py: SHA-256 is"),
        (artifact(tmp_path / "other", name="tripler").folder, "is an artifact of 'tripler'"),
        (tmp_path / "empty", "has no manifest.json"),
        (tmp_path / "nowhere", "is no folder"),
    ):
        given = publish(source)
        assert (given.exit_code, said in given.stderr) == (2, True), given.stderr
    unknown = CliRunner().invoke(cli, ["--env", "dev", "publish", "tripler", str(tmp_path)])
    assert "There is no model 'tripler': there are doubler" in unknown.stderr
