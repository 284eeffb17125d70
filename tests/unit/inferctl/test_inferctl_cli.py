"""The command line as people and scripts use it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import local_aws
from inferctl.cli import cli
from tests.unit.inferctl.fake_api import Api, problem


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin, prog_name="inferctl")


def dev_run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return run("--env", "dev", *arguments, stdin=stdin)


REQUEST = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Hi"]}]}


class TestHelp:
    def test_it_lists_commands_in_the_order_of_use_and_the_exit_statuses(self) -> None:
        text = run("--help").output
        calling = [
            "up",
            "down",
            "status",
            "releases",
            "rollback",
            "doctor",
            "token",
            "models",
            "infer",
            "publish",
            "serve",
            "bench",
            "logs",
        ]
        names = [*calling, "drift", "diff", "baseline", "prune", "demo"]
        listed = text.split("Commands:")[1].split("Exit status:")[0]
        lines = [line.split()[0] for line in listed.splitlines() if line.strip()]
        assert lines == names
        assert "3    the environment is not up, not deployed, or does not answer" in text

    @pytest.mark.parametrize(
        "command", ["up", "status", "token", "models", "infer", "logs", "drift", "diff", "prune"]
    )
    def test_every_command_that_takes_options_shows_an_example(self, command: str) -> None:
        assert "  inferctl" in run(command, "--help").output.split("Options:")[0].split("\n", 1)[1]


class TestToken:
    def test_it_is_all_that_is_printed(self, dev: Api) -> None:
        result = dev_run("token")
        assert (result.exit_code, result.stdout) == (0, "token-for:invoke\n")

    def test_another_client_can_be_named(self, dev: Api) -> None:
        assert dev_run("token", "--client", "operator").stdout == "token-for:admin\n"

    def test_json_says_when_it_expires(self, dev: Api) -> None:
        for arguments in (("--json", "token"), ("token", "--json")):
            document = json.loads(dev_run(*arguments).stdout)
            assert document == {
                "access_token": "token-for:invoke",
                "token_type": "Bearer",
                "expires_in": 3600,
            }

    def test_an_unknown_client_is_told_which_there_are(self, dev: Api) -> None:
        result = dev_run("token", "--client", "nobody")
        assert result.exit_code == 1
        assert (
            "There is no client 'nobody' in config/dev.yaml; it has demo, operator, probe." in result.stderr
        )

    def test_a_refused_client_exits_4(self, dev: Api) -> None:
        dev.answers["/oauth2/token"] = [(400, {"error": "invalid_client"}, {})]
        result = dev_run("token")
        assert result.exit_code == 4
        assert "invalid_client" in result.stderr


class TestInfer:
    def sent(self, api: Api) -> Any:
        return next(r for r in api.requests if r.path.endswith("/infer")).json

    def test_a_file_with_a_request_is_sent_as_it_is(self, dev: Api, tmp_path: Path) -> None:
        file = tmp_path / "request.json"
        file.write_text(json.dumps(REQUEST))
        result = dev_run("infer", "text-embedding", str(file))
        assert (result.exit_code, self.sent(dev)) == (0, REQUEST)
        assert result.stdout.splitlines() == ["label", "txt"]

    def test_a_request_comes_from_standard_input(self, dev: Api) -> None:
        assert dev_run("infer", "text-embedding", "-", stdin=json.dumps(REQUEST)).exit_code == 0
        assert self.sent(dev) == REQUEST

    def test_a_request_comes_from_the_command_line(self, dev: Api) -> None:
        result = dev_run("infer", "text-embedding", "--json", "--body", json.dumps(REQUEST))
        assert json.loads(result.stdout)["outputs"][0]["data"] == ["txt"]
        assert self.sent(dev) == REQUEST

    def test_texts_become_the_tensor_that_the_model_takes(self, dev: Api) -> None:
        assert dev_run("infer", "text-embedding", "--text", "a", "--text", "b").exit_code == 0
        assert self.sent(dev)["inputs"] == [
            {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
        ]

    def test_a_file_becomes_base64(self, dev: Api, tmp_path: Path) -> None:
        (tmp_path / "x.bin").write_bytes(b"\x00\xff")
        assert dev_run("infer", "file-type", "--file", str(tmp_path / "x.bin")).exit_code == 0
        (tensor,) = self.sent(dev)["inputs"]
        assert (tensor["data"], tensor["parameters"]) == (["AP8="], {"content_type": "base64"})

    @pytest.mark.parametrize("arguments", [(), ("--text", "a", "--body", "{}"), ("x.json", "--text", "a")])
    def test_exactly_one_source_is_needed(self, dev: Api, arguments: tuple[str, ...]) -> None:
        result = dev_run("infer", "file-type", *arguments)
        assert result.exit_code == 2
        assert "exactly one of REQUEST, --body, --file and --text" in result.stderr
        assert dev.requests == []

    @pytest.mark.parametrize("body", ["{", "[]", "", '{"inputs": }'])
    def test_a_request_that_is_none_is_not_sent(self, dev: Api, body: str) -> None:
        result = dev_run("infer", "file-type", "--body", body)
        assert result.exit_code == 2
        assert dev.requests == []

    def test_a_missing_file_is_named(self, dev: Api) -> None:
        result = dev_run("infer", "file-type", "absent.json")
        assert result.exit_code == 2
        assert "absent.json cannot be read: No such file or directory." in result.stderr

    def test_a_client_without_the_scope_exits_4(self, dev: Api) -> None:
        result = dev_run("infer", "file-type", "--client", "operator", "--body", json.dumps(REQUEST))
        assert result.exit_code == 4
        assert "403 Forbidden: It is forbidden. (request req-1)" in result.stderr
        assert result.stdout == ""

    def test_an_error_of_the_service_exits_1_and_is_a_document_with_json(self, dev: Api) -> None:
        dev.answers["/dev/v2/models/file-type/infer"] = [problem(400, "invalid-shape")]
        result = dev_run("--json", "infer", "file-type", "--body", json.dumps(REQUEST))
        assert (result.exit_code, result.stdout) == (1, "")
        document = json.loads(result.stderr)
        assert document["exit_status"] == 1
        assert document["problem"]["type"] == "urn:inference-platform:problem:invalid-shape"


class TestModels:
    def test_they_are_a_plain_table_without_a_terminal(self, dev: Api) -> None:
        lines = dev_run("models").stdout.splitlines()
        assert lines == ["model      target  live version", "file-type  cpu     abababababab"]

    def test_json_is_what_the_api_said(self, dev: Api) -> None:
        assert json.loads(dev_run("models", "--json").stdout)[0]["artifact_sha256"] == "ab" * 32


class TestWithoutAnEnvironment:
    def test_an_environment_that_is_not_deployed_exits_3(self, aws: Callable[[str], Any]) -> None:
        result = dev_run("models")
        assert result.exit_code == 3
        assert (
            "The environment is not deployed here: SSM has no parameter /inference/dev/api/url"
            in result.stderr
        )

    @pytest.mark.parametrize("command", ["status", "token", "models"])
    def test_without_the_embedded_aws_it_says_how_to_start_it(
        self, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("LOCAL_AWS_HOME", str(tmp_path))
        result = run(command)
        assert result.exit_code == 3
        assert "The embedded AWS is not running: start it with `inferctl up`." in result.stderr

    def test_an_unknown_environment_exits_2_and_is_told_which_there_are(self) -> None:
        result = run("--env", "prd", "status")
        assert result.exit_code == 2
        assert "there is no environment 'prd': there are dev, local, prod" in result.stderr

    def test_the_environment_may_come_from_a_variable(
        self, dev: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INFERENCE_ENV", "dev")
        assert run("token").stdout == "token-for:invoke\n"

    def test_no_aws_credentials_exit_4(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        result = dev_run("status")
        assert result.exit_code == 4
        assert "No AWS credentials" in result.stderr
        assert "AWS_PROFILE" in result.stderr

    @pytest.mark.parametrize("command", ["up", "down", "demo"])
    def test_what_only_the_embedded_aws_can_do_is_refused_elsewhere_with_the_way(self, command: str) -> None:
        result = dev_run(command)
        assert result.exit_code == 2
        assert f"`inferctl {command}` is for the environment 'local' only." in result.stderr

    def test_down_is_idempotent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LOCAL_AWS_HOME", str(tmp_path))
        for _ in range(2):
            result = run("down", "--json")
            assert (result.exit_code, json.loads(result.stdout)) == (0, {"stopped": False})


def test_ctrl_c_exits_130_without_a_traceback(dev: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inferctl.environment.find", interrupt)
    result = dev_run("models")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted.\n"


def test_what_the_embedded_aws_cannot_do_exits_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise local_aws.LocalAwsError("Port 1 is in use.")

    monkeypatch.setattr("inferctl.deployment.down", refuse)
    result = run("down")
    assert (result.exit_code, result.stderr) == (3, "Error: Port 1 is in use.\n")
