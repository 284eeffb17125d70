"""How the tests are shared among processes: expensive set-up is made once, and the longest go first."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

LONGEST_FIRST = ("integration/platform", "template", "integration/local_aws")
"""Folders whose tests share a session's set-up (a deployed platform, syntheses, an embedded AWS). Each is one
process's, under `pytest -n`; of the rest, each file is.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the group that pytest-xdist keeps together (`--dist loadgroup`)."""
    groups = {}
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        groups[item] = next((folder for folder in LONGEST_FIRST if path.startswith(f"{folder}/")), path)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    rank = {folder: place for place, folder in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(groups[item], len(rank)))
