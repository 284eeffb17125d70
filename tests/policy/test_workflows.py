"""GitHub's workflows: what they run can be run here, and they can do no more than they need."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from app import ROOT
from inferctl.cli import cli

WORKFLOWS = ROOT / ".github" / "workflows"
BIN = Path(sys.executable).parent


def workflows() -> dict[str, Any]:
    found = {path.name: YAML(typ="safe").load(path.read_text()) for path in sorted(WORKFLOWS.glob("*.yml"))}
    assert found
    return found


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file, workflow in workflows().items():
        for name, job in workflow["jobs"].items():
            yield f"{file} {name}", job


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    actionlint = ROOT / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"
    return subprocess.run(
        [BIN / "node", actionlint, "*.yml"], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_actionlint_finds_nothing_and_would_find_something(tmp_path: Path) -> None:
    done = lint(WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "wrong.yml").write_text(
        "on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ no.such }}\n"
    )
    assert lint(tmp_path).returncode != 0


def test_zizmor_finds_nothing() -> None:
    done = subprocess.run(
        [BIN / "zizmor", "--offline", "--no-progress", WORKFLOWS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    used = [
        line.split("uses:", 1)[1].strip()
        for path in WORKFLOWS.glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    for action in used:
        assert re.match(r"\./\.github/workflows/|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", action), action


def test_a_job_has_the_permissions_that_it_names_and_no_others() -> None:
    assert all(workflow["permissions"] == {} for workflow in workflows().values())
    for name, job in jobs():
        granted = {scope for scope, level in job["permissions"].items() if level == "write"}
        assert granted <= {"id-token", "pull-requests"}, name
        # Whoever can write must not run what a pull request brings.
        if "pull-requests" in granted:
            assert not [step for step in job["steps"] if "checkout" in step.get("uses", "")], name


def test_no_job_takes_a_stored_secret() -> None:
    assert not [path.name for path in WORKFLOWS.glob("*.yml") if "secrets." in path.read_text()]


def test_every_command_can_be_run_locally() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    seen = 0
    for name, job in jobs():
        for step in job.get("steps", ()):
            for line in step.get("run", "").splitlines():
                words = [word for word in shlex.split(line) if not word.startswith("--")]
                seen += 1
                if words[0] == "make":
                    assert words[1] in targets, (name, line)
                elif words[0] == ".venv/bin/inferctl":
                    assert set(words) & set(cli.commands), (name, line)
                else:
                    # Comments are GitHub's; its command line is on its runners.
                    assert line.startswith("cat review-*.md | gh pr comment "), (name, line)
    assert seen > 5


def test_a_deployment_is_rated_before_and_pruned_after() -> None:
    [(_, job)] = [(name, job) for name, job in jobs() if name.startswith("deploy-environment.yml")]
    order = [step["run"] for step in job["steps"] if "run" in step]
    names = ["make synth", "make --silent diff", "make deploy", "inferctl --env", "inferctl --env"]
    assert len(order) == len(names)
    for expected, command in zip(names, order, strict=True):
        assert expected in command
    assert "prune" in order[3]
    assert job["environment"]
