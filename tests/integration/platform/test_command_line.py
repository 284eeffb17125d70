"""`inferctl` against the deployed platform, as a user types it."""

import json
from pathlib import Path

from app import ROOT
from tests.integration.platform.conftest import Platform


def test_status_shows_stacks_and_models(platform: Platform) -> None:
    done = platform.inferctl("--json", "status")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "file-type" in done.stdout
    assert "text-embedding" in done.stdout
    assert document


def test_models_lists_the_catalog(platform: Platform) -> None:
    done = platform.inferctl("--json", "models")
    assert done.returncode == 0, done.stderr
    assert {"file-type", "text-embedding"} <= set(json.dumps(json.loads(done.stdout)).split('"'))


def test_token_is_accepted_by_the_api(platform: Platform) -> None:
    token = platform.inferctl("token").stdout.strip()
    assert platform.call("GET", "/v2", token=token).status_code == 200


def test_infer_takes_a_request_a_raw_file_a_text_or_standard_input(platform: Platform) -> None:
    sample = ROOT / "models" / "file-type" / "sample.json"
    from_file = platform.inferctl("--json", "infer", "file-type", str(sample))
    assert from_file.returncode == 0, from_file.stderr
    from_stdin = platform.inferctl("--json", "infer", "file-type", "-", stdin=sample.read_text())
    assert json.loads(from_stdin.stdout) == json.loads(from_file.stdout)

    raw = platform.inferctl("--json", "infer", "file-type", "--file", str(ROOT / "Makefile"))
    labels = {output["name"]: output["data"] for output in json.loads(raw.stdout)["outputs"]}
    assert labels["label"] == ["makefile"]

    text = platform.inferctl("--json", "infer", "text-embedding", "--text", "a sentence")
    [output] = json.loads(text.stdout)["outputs"]
    assert output["shape"] == [1, 384]


def test_bench_measures_a_deployed_model_with_a_token_through_the_gateway(platform: Platform) -> None:
    done = platform.inferctl("--json", "bench", "wine-cultivar", "-c", "2", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["url"].startswith("https://")
    assert document["url"].endswith("/v2/models/wine-cultivar/infer")
    [result] = document["results"]
    assert (result["connections"], result["failed"]) == (2, 0)
    assert result["requests"] > 0
    assert result["p50"] > 0


def test_exit_status_tells_what_went_wrong(platform: Platform, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"inputs": []}')
    assert platform.inferctl("infer", "file-type", str(bad)).returncode == 1
    assert platform.inferctl("infer", "file-type", str(tmp_path / "missing.json")).returncode == 2
    nowhere = {**platform.variables, "LOCAL_AWS_HOME": str(tmp_path)}
    stopped = Platform(tmp_path, platform.deployed, platform.http, nowhere)
    assert stopped.inferctl("status").returncode == 3


def test_prune_deletes_only_our_stacks_that_left_the_app(platform: Platform) -> None:
    cloudformation = platform.aws("cloudformation")
    template = json.dumps(
        {"Resources": {"P": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "x"}}}}
    )
    ours = [{"Key": "inference:environment", "Value": "local"}]
    for name, tags in (("inference-local-model-gone", ours), ("somebody-elses", [])):
        cloudformation.create_stack(StackName=name, TemplateBody=template, Tags=tags)
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name)

    def stacks() -> set[str]:
        return {s["StackName"] for s in cloudformation.describe_stacks()["Stacks"]}

    before = stacks()
    assembly = str(platform.home / "assembly")
    done = platform.inferctl("prune", "--yes", "--assembly", assembly)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before - stacks() == {"inference-local-model-gone"}
    cloudformation.delete_stack(StackName="somebody-elses")


def test_doctor_finds_a_deployed_environment_ready_and_says_what_it_cannot_know(platform: Platform) -> None:
    done = platform.inferctl("doctor", "--env", "local", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    states = {finding["check"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    asked = ("credentials", "region", "zones", "services", "bootstrap", "S3 prefix list", "API logging role")
    assert {check: states[check] for check in asked} == dict.fromkeys(asked, "ok")
    assert {states[check] for check in ("GPU quotas", "API quota", "price")} == {"unknown"}
