"""Programs that inferctl runs: their output, their failures, and their end."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from inferctl.commands import CommandError, Commands


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child of a killed parent waits for init to reap it.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_every_line_goes_to_the_log_and_to_the_listener(tmp_path: Path) -> None:
    lines: list[str] = []
    with Commands(tmp_path / "sub" / "log") as commands:
        commands.run(
            python("import sys; print('out'); print('err', file=sys.stderr)"),
            what="it",
            folder=tmp_path,
            environment={},
            on_line=lines.append,
        )
    assert sorted(lines) == ["err", "out"]
    assert sorted((tmp_path / "sub" / "log").read_text().split()) == ["err", "out"]


def test_a_failure_shows_its_last_words_without_noise(tmp_path: Path) -> None:
    code = "print('noise'); print('the reason'); raise SystemExit(3)"
    with Commands(tmp_path / "log") as commands, pytest.raises(CommandError) as caught:
        commands.run(
            python(code),
            what="cdk deploy",
            folder=tmp_path,
            environment={},
            is_noise=lambda line: line == "noise",
        )
    assert str(caught.value) == (
        f"cdk deploy failed (exit status 3); the whole log is {tmp_path / 'log'}\n  the reason"
    )


def test_leaving_the_block_ends_the_program_and_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    pids: list[int] = []
    failures: list[CommandError] = []

    def run(commands: Commands) -> None:
        try:
            commands.run(
                python(code),
                what="it",
                folder=tmp_path,
                environment={},
                on_line=lambda line: pids.append(int(line)),
            )
        except CommandError as error:
            failures.append(error)

    started = time.monotonic()
    with Commands(tmp_path / "log") as commands:
        thread = threading.Thread(target=run, args=(commands,))
        thread.start()
        while not pids and time.monotonic() - started < 20:
            time.sleep(0.01)
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert failures
    deadline = time.monotonic() + 5
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pids[0])


def test_nothing_starts_once_the_block_was_left(tmp_path: Path) -> None:
    with Commands(tmp_path / "log") as commands:
        pass
    with pytest.raises(CommandError, match="Stopped"):
        commands.run(python("open('ran', 'w')"), what="it", folder=tmp_path, environment={})
    assert not (tmp_path / "ran").exists()
