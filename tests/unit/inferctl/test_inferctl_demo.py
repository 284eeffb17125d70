"""The demo's judgement: which answers pass, and that nothing stays running. The API is a loopback server."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import local_aws
from catalog import CpuModel, ModelSpec
from inferctl import demo, deployment
from inferctl.cli import cli
from inferctl.environment import Deployed, find
from inferctl.output import Output
from tests.unit.inferctl.fake_api import Api, problem

SPEC = CpuModel(name="file-type", description="d", owner="ml", target="cpu", version="1.0.0")
SAMPLE = {"inputs": [{"name": "content", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / SPEC.name
    folder.mkdir(parents=True)
    (folder / "sample.json").write_text(json.dumps(SAMPLE))
    (folder / "expected.json").write_text(json.dumps({"outputs": {"label": {"equals": ["txt"]}}}))
    return tmp_path


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """A deployment that is up at once; the homes that were taken down."""
    homes: list[Path | None] = []
    monkeypatch.setattr(local_aws, "status", lambda **_: None)
    monkeypatch.setattr(deployment, "up", lambda *_, **__: None)
    monkeypatch.setattr(deployment, "down", lambda home: homes.append(home))
    return homes


def converse(deployed: Deployed, root: Path) -> tuple[demo.Outcome, ...]:
    with Output().board("Test") as board:
        return demo.converse(deployed, (SPEC,), root, board)


def test_right_answers_and_right_refusals_pass(dev: Api, root: Path) -> None:
    outcomes = converse(find("dev"), root)
    assert [(o.request, o.status, o.wrong) for o in outcomes] == [
        ("file-type", 200, ()),
        ("file-type, no token", 401, ()),
        ("file-type, scope admin only", 403, ()),
    ]
    assert outcomes[0].answer == "label: txt"
    assert outcomes[0].median_ms
    assert outcomes[0].median_ms > 0


@pytest.mark.parametrize(
    ("path", "answer", "wrong"),
    [
        (
            "/dev/v2/models/file-type/infer",
            (200, {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["pdf"]}]}, {}),
            "label: is ['pdf'], expected ['txt']",
        ),
        (
            "/dev/v2/models/file-type/infer",
            problem(500, "internal"),
            "500 Internal: It is internal. (request req-1)",
        ),
        (
            "/dev/v2/models/file-type/infer",
            (403, {"message": "no"}, {}),
            "the answer is not a problem document",
        ),
        ("/dev/v2/models/file-type/infer", problem(404, "not-found"), "status 404, expected 401"),
    ],
)
def test_a_wrong_answer_or_refusal_is_told(dev: Api, root: Path, path: str, answer: Any, wrong: str) -> None:
    dev.answers[path] = [answer]
    assert wrong in [text for outcome in converse(find("dev"), root) for text in outcome.wrong]


def test_an_answer_where_a_refusal_belongs_is_wrong(dev: Api, root: Path) -> None:
    output = {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["txt"]}
    dev.answers["/dev/v2/models/file-type/infer"] = [(200, {"outputs": [output]}, {})]
    outcomes = converse(find("dev"), root)
    assert [outcome.wrong for outcome in outcomes] == [(), *[("was answered, not refused",)] * 2]


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> Result:
        original, catalog = demo.run, (SPEC,)
        deployed = find("dev")
        monkeypatch.setattr(demo, "find", lambda *_: deployed)
        monkeypatch.setattr(demo, "load_catalog", lambda _: catalog)
        monkeypatch.setattr(demo, "run", lambda board: original(board, root))
        return CliRunner().invoke(cli, ["demo", *arguments], prog_name="inferctl")

    def test_it_shows_every_answer_and_stops(
        self, dev: Api, root: Path, stopped: list[Path | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = self.run(monkeypatch, root)
        assert result.exit_code == 0, result.stderr
        header, *rows = result.stdout.splitlines()
        assert header.split("  ")[0] == "request"
        assert rows[0].startswith("file-type ")
        assert rows[0].endswith("as expected")
        assert "Deployed in" in rows[-1]
        assert stopped == [None]

    def test_a_wrong_answer_fails_the_command(
        self, dev: Api, root: Path, stopped: list[Path | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dev.answers["/dev/v2/models/file-type/infer"] = [problem(500, "internal")]
        result = self.run(monkeypatch, root, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["right"] is False
        assert stopped == [None]

    def test_ctrl_c_stops_everything_and_exits_130(
        self, dev: Api, root: Path, stopped: list[Path | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object, **__: object) -> tuple[ModelSpec, ...]:
            raise KeyboardInterrupt

        monkeypatch.setattr(deployment, "up", interrupted)
        assert self.run(monkeypatch, root).exit_code == 130
        assert stopped == [None]

    def test_a_deployment_that_is_up_is_left_alone(
        self, dev: Api, root: Path, stopped: list[Path | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local_aws, "status", lambda **_: "running")
        assert self.run(monkeypatch, root).exit_code == 0
        (home,) = stopped
        assert home is not None
        assert not home.exists()
