"""How the CDK CLI is called, and what its output is understood to say."""

import json
import os
from pathlib import Path

import pytest

from inferctl import cdk
from inferctl.errors import InferctlError

OUTPUT = """\
inference-local-keys: start: Publishing inference-local-keys Template (000000000000-us-east-1-6958c715)
inference-local-keys
inference-local-keys: deploying... [1/3]
inference-local-keys: creating stack...
inference-local-keys |   3/14 | 1:55:08 AM | CREATE_COMPLETE         | AWS::KMS::Alias | Alarms (A9A5B11BA)

 ✅  inference-local-keys

✨  Deployment time: 0.28s

inference-local-keys |  14/14 | 1:55:09 AM | CREATE_COMPLETE         | AWS::CloudFormation::Stack | late
 ✅  inference-local-network (no changes)
inference-other: deploying... [2/3]
❌  inference-local-api failed to deploy
"""


def test_progress_follows_each_stack_to_its_end() -> None:
    told: list[tuple[str, str, str]] = []
    stacks = ["inference-local-keys", "inference-local-network", "inference-local-api"]
    progress = cdk.Progress(stacks, lambda *update: told.append(update))
    for line in OUTPUT.splitlines():
        progress.line(line)
    assert told == [
        *((stack, "waiting", "") for stack in stacks),
        ("inference-local-keys", "waiting", "publishing assets"),
        ("inference-local-keys", "working", ""),
        ("inference-local-keys", "working", "3 done, CREATE_COMPLETE AWS::KMS::Alias"),
        ("inference-local-keys", "done", ""),
        ("inference-local-network", "done", "unchanged"),
        ("inference-local-api", "failed", ""),
    ]


def test_noise_is_what_went_well() -> None:
    event = "a | 3/14 | 1:55:08 AM | {} | AWS::KMS::Alias | Alias (A9A5B11BA)"
    assert cdk.is_noise(event.format("CREATE_COMPLETE"))
    assert cdk.is_noise("a: start: Building a Template")
    assert not cdk.is_noise(event.format("CREATE_FAILED"))
    assert not cdk.is_noise("❌  a failed to deploy")


def test_a_local_call_takes_nothing_of_the_users_aws_settings_or_proxies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    variables = cdk.variables({"AWS_ENDPOINT_URL": "https://127.0.0.1:1"})
    assert {name for name in variables if name.startswith("AWS_")} == {
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ENDPOINT_URL",
    }
    assert variables["AWS_CONFIG_FILE"] == os.devnull
    assert "https_proxy" not in variables


def test_any_other_call_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    assert cdk.variables()["AWS_PROFILE"] == "production"


def test_the_stacks_of_an_assembly_come_in_its_order(tmp_path: Path) -> None:
    artifacts = {
        "Tree": {"type": "cdk:tree"},
        "b": {"type": "aws:cloudformation:stack", "properties": {"stackName": "inference-dev-b"}},
        "b.assets": {"type": "cdk:asset-manifest"},
        "a": {"type": "aws:cloudformation:stack", "properties": {}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    assert cdk.stacks(tmp_path) == ["inference-dev-b", "a"]


def test_a_folder_that_is_no_assembly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InferctlError, match=r"manifest\.json is not the manifest of a CDK assembly"):
        cdk.stacks(tmp_path)
