"""The committed baselines say what the app deploys: a diff against a commit can be believed."""

from collections.abc import Callable

import pytest

from app import ROOT
from inferctl.review import templates
from inferctl.review.changes import changes
from tests.assembly import Assembly

# The embedded AWS's functions are made for whatever Python runs here, so its templates are no one thing.
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem != "local")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_baseline_is_what_the_app_deploys(
    environment: str, synthesize: Callable[[str], Assembly]
) -> None:
    written = templates.of_assembly(synthesize(environment).folder)
    baseline = templates.of_assembly(templates.BASELINES / environment)
    differing = [f"{c.stack} {c.resource}: {c.action}" for c in changes(baseline, written)]
    assert not differing, "\n".join(["Run `make baselines`, look at the diff, and commit it.", *differing])
    assert baseline == written
