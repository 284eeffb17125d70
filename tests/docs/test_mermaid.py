"""Every diagram is parsed by Mermaid itself, and every drawing of one is of its present source."""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
Check = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def check() -> Check:
    """Runs mermaid.mjs on files, in a Mermaid installed as the lock file says."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    modules = HERE / "node_modules"
    # Test processes run side by side: one installs, the others wait.
    modules.mkdir(exist_ok=True)
    with (modules / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = modules / ".installed"
        wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
        if not installed.is_file() or installed.read_text() != wanted:
            command = [str(BIN / "npm"), "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=HERE, env=environment, check=True)
            installed.write_text(wanted)

    def run(*files: Path) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [BIN / "node", HERE / "mermaid.mjs", *files]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return run


def test_mermaid_parses_every_diagram(check: Check, markdown: list[Path]) -> None:
    done = check(*markdown)
    assert done.returncode == 0, done.stderr
    found = int(done.stdout.split()[0])
    assert found == sum(len(re.findall(r"^```mermaid$", file.read_text(), re.M)) for file in markdown)
    assert found >= 4  # system, deployment, and a request to either target


@pytest.mark.parametrize(
    ("diagram", "reason"),
    [
        ("sequenceDiagram\n    A->>", "Expecting"),
        ("architecture-beta\n    service a(logos:aws-lambda)[A]\n    a:R --> L:b", "[b] does not yet exist"),
        ("architecture-beta\n    service a(logos:aws-lamda)[A]", 'no icon "aws-lamda"'),
        ("arhitecture-beta\n    service a(cloud)[A]", "No diagram type detected"),
    ],
    ids=["syntax", "unknown element", "unknown icon", "unknown diagram"],
)
def test_a_broken_diagram_is_named_with_file_line_and_reason(
    check: Check, tmp_path: Path, diagram: str, reason: str
) -> None:
    document = tmp_path / "broken.md"
    document.write_text(
        f"# Fine\n\n```mermaid\nsequenceDiagram\n    A->>B: hi\n```\n\n```mermaid\n{diagram}\n```\n"
    )
    done = check(document)
    assert done.returncode == 1
    assert done.stdout == "2 diagrams, 1 problems\n"
    assert done.stderr.startswith(f"{document}:9: ")
    assert reason in done.stderr


def test_a_fence_that_is_never_closed_is_no_way_around_the_check(check: Check, tmp_path: Path) -> None:
    document = tmp_path / "open.md"
    document.write_text("```mermaid\nsequenceDiagram\n    A->>B: hi\n")
    done = check(document)
    assert done.returncode == 1
    assert f"{document}:1: this fence is never closed" in done.stderr


def test_every_drawing_is_of_the_source_beside_it(markdown: list[Path]) -> None:
    shown = re.compile(r"!\[[^\]]*\]\(([^)]+\.svg)\)\s+```mermaid\n(.*?)```\n", re.S)
    drawings = {
        (file.parent / image).resolve(): source
        for file in markdown
        for image, source in shown.findall(file.read_text())
    }
    # Dashboards and plots are of data.
    drawn = {
        path
        for path in (ROOT / "docs" / "images").glob("*.svg")
        if not path.name.startswith(("dashboard-", "plot-"))
    }
    assert set(drawings) == drawn
    for image, source in drawings.items():
        hash_of_source = hashlib.sha256(source.encode()).hexdigest()
        assert hash_of_source in image.read_text(), (
            f"{image.name} is stale: run `node tests/docs/render.mjs docs/architecture.md` and look at it"
        )
