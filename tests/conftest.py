"""How the tests are shared among processes: expensive set-up is made once, and the longest go first. And what
tests of several folders share: one synthesis of each environment.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from tests.assembly import Assembly

# As many processes as cores: threads of each would wait for one another. To be said before NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No example fails for the time it takes: the machine may be busy.
patient = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("patient", patient)
hypothesis.settings.load_profile("patient")

TESTS = Path(__file__).parent

LONGEST_FIRST = (("integration/platform",), ("template", "policy"), ("integration/local_aws",))
"""Folders whose tests share a session's set-up: a deployed platform, syntheses, an embedded AWS. Each group
is one process's, under `pytest -n`; of the rest, each file is.
"""

ENVIRONMENTS = ("local", "dev", "prod")


def _group(path: str) -> str:
    """The group of a test file, whose path is below `tests/`."""
    shared = (folders[0] for folders in LONGEST_FIRST if path.startswith(tuple(f"{f}/" for f in folders)))
    return next(shared, path)


class _InGroups(LoadScopeScheduling):
    """Gives each group of tests to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.partition("::")[0].removeprefix("tests/"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    # pytest-xdist's own `--dist loadgroup` writes a member of items that this pytest no longer has.
    return _InGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {folders[0]: place for place, folders in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(_group(item.path.relative_to(TESTS).as_posix()), len(rank)))


@pytest.fixture(scope="session")
def synthesize(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], "Assembly"]:
    # Here, because the CDK takes seconds to import, and most tests do without.
    from app import ROOT
    from catalog.loader import load_platform
    from tests.assembly import assemble

    done: dict[str, Assembly] = {}

    def run(environment: str) -> "Assembly":
        if environment not in done:
            folder = tmp_path_factory.mktemp(environment)
            done[environment] = assemble(folder, load_platform(ROOT, environment))
        return done[environment]

    return run


@pytest.fixture(params=ENVIRONMENTS)
def assembly(request: pytest.FixtureRequest, synthesize: Callable[[str], "Assembly"]) -> "Assembly":
    """The assembly of each environment in turn."""
    return synthesize(request.param)


@pytest.fixture
def dev(synthesize: Callable[[str], "Assembly"]) -> "Assembly":
    return synthesize("dev")


@pytest.fixture
def prod(synthesize: Callable[[str], "Assembly"]) -> "Assembly":
    return synthesize("prod")
