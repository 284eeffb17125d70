"""The repository as readers see it: the files that git tracks, and those about to be."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def repository_files(*patterns: str) -> list[Path]:
    """Files that git tracks or would track, as absolute paths; `patterns` are git pathspecs."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


@pytest.fixture(scope="session")
def markdown() -> list[Path]:
    """Every Markdown document."""
    files = repository_files("*.md")
    assert ROOT / "README.md" in files
    return files
