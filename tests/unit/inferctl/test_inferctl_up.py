"""Bringing up: what runs together, and what is stopped when it goes wrong. The programs are stand-ins."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import local_aws
from inferctl import cdk, deployment
from inferctl.commands import CommandError
from inferctl.output import Board

STATE = local_aws.State(1, "https://127.0.0.1:1", "us-east-1", "000000000000", "ca.pem", "key", "secret")
MANIFEST = json.dumps({"artifacts": {"inference-local-keys": {"type": "aws:cloudformation:stack"}}})
PAUSE = "import time; time.sleep(0.3)"


class Machine:
    """Stands for the embedded AWS and the CDK CLI: what was done, and what each program runs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs = False
        self.done: list[str] = []
        self.code = {"synth": PAUSE, "bootstrap": PAUSE, "deploy": "print(' ✅  inference-local-keys')"}

    def start(self, port: int | None, *, home: Path) -> local_aws.State:
        self.runs = True
        self.done.append("start")
        return STATE

    def stop(self, *, home: Path) -> bool:
        was, self.runs = self.runs, False
        self.done.append("stop")
        return was

    def status(self, *, home: Path) -> local_aws.State | None:
        return STATE if self.runs else None

    def program(self, name: str) -> list[str]:
        self.done.append(name)
        if name == "synth":
            (self.home / "assembly").mkdir(exist_ok=True)
            (self.home / "assembly" / "manifest.json").write_text(MANIFEST)
        return [sys.executable, "-c", self.code[name]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    stand_in = Machine(tmp_path)
    for name in ("start", "stop", "status"):
        monkeypatch.setattr(local_aws, name, getattr(stand_in, name))
    monkeypatch.setattr(cdk, "synth", lambda *_: stand_in.program("synth"))
    monkeypatch.setattr(cdk, "bootstrap", lambda *_: stand_in.program("bootstrap"))
    monkeypatch.setattr(cdk, "deploy", lambda *_, **__: stand_in.program("deploy"))
    return stand_in


def board() -> Board:
    return Board(Console(stderr=True), "Test")


def test_it_starts_bootstraps_synthesizes_and_deploys(machine: Machine, tmp_path: Path) -> None:
    assert deployment.up(board(), home=tmp_path) == STATE
    assert sorted(machine.done) == ["bootstrap", "deploy", "start", "synth"]
    assert machine.done[-1] == "deploy"
    assert machine.runs


def test_synthesis_and_bootstrap_run_at_the_same_time(machine: Machine, tmp_path: Path) -> None:
    machine.code |= {"synth": "import time; time.sleep(1.5)", "bootstrap": "import time; time.sleep(1.5)"}
    started = time.monotonic()
    deployment.up(board(), home=tmp_path)
    assert time.monotonic() - started < 2.9


def test_a_failure_ends_what_runs_beside_it_and_leaves_the_aws_to_look_at(
    machine: Machine, tmp_path: Path
) -> None:
    machine.code |= {
        "synth": "raise SystemExit('models/x/model.yaml:1: no')",
        "bootstrap": "import time; time.sleep(60)",
    }
    started = time.monotonic()
    with pytest.raises(CommandError, match=r"cdk synth failed.*\n  models/x/model\.yaml:1: no"):
        deployment.up(board(), home=tmp_path)
    assert time.monotonic() - started < 20
    assert machine.runs
    assert "deploy" not in machine.done


def interrupt_while_deploying(machine: Machine) -> None:
    machine.code["deploy"] = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"


def test_ctrl_c_stops_what_it_started(machine: Machine, tmp_path: Path) -> None:
    interrupt_while_deploying(machine)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        deployment.up(board(), home=tmp_path)
    assert time.monotonic() - started < 20
    assert machine.done[-1] == "stop"
    assert not machine.runs


def test_ctrl_c_leaves_running_what_ran_before(machine: Machine, tmp_path: Path) -> None:
    interrupt_while_deploying(machine)
    machine.runs = True
    with pytest.raises(KeyboardInterrupt):
        deployment.up(board(), home=tmp_path)
    assert machine.runs


def test_cleaning_up_is_not_interrupted_again() -> None:
    with deployment.uninterrupted():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_progress_without_a_terminal_is_one_plain_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    with board() as shown:
        shown.update("keys", "waiting")
        shown.update("keys", "working", "1 of 3")
        shown.update("keys", "working", "2 of 3")
        shown.update("keys", "failed", "[no markup]")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["Test", "working  keys 1 of 3"]
    assert lines[2].startswith("failed   keys (")
    assert lines[2].endswith("[no markup]")
    assert len(lines) == 3
