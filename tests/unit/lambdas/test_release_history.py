"""The table of releases: what is noted of each, and whose turn it is."""

from collections.abc import Iterator

import history
import pytest
from outcomes import NotYet

from tests.unit.mocked_aws import create_releases, mocked_aws

ENTRY = history.entry_of("1.1.0", "2026-01-02T03:04:05.678Z")
OURS, THEIRS = "arn:aws:states:us-east-1:1:execution:r:ours", "arn:aws:states:us-east-1:1:execution:r:theirs"


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mocked_aws(monkeypatch, TABLE="releases"):
        create_releases()
        history._table.cache_clear()
        yield
        history._table.cache_clear()


def test_a_step_that_outlives_its_execution_changes_no_release_that_has_ended() -> None:
    history.note("tiny", ENTRY, version="1.1.0", status="JUDGING")
    history.note("tiny", ENTRY, status="FAILED", ended="2026-01-02T04:00:00Z")
    history.note("tiny", ENTRY, status="JUDGING", metrics={"p99_ms": 1.5})
    [release] = history.releases("tiny")
    assert (release["status"], "metrics" in release) == ("FAILED", False)


def test_a_lock_whose_execution_has_ended_is_taken_over_with_what_it_remembers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = {OURS, THEIRS}
    monkeypatch.setattr(history, "_runs", lambda execution: execution in running)
    assert history.take_turn("tiny", ENTRY, THEIRS) is None
    history.remember("tiny", policy="as it was")
    later = history.entry_of("1.2.0", "2026-01-02T05:00:00Z")
    with pytest.raises(NotYet, match="another release runs"):
        history.take_turn("tiny", later, OURS)
    running.remove(THEIRS)
    taken = history.take_turn("tiny", later, OURS)
    assert taken is not None
    assert (taken["abandoned"], taken["policy"]) == (ENTRY, "as it was")
    assert history.holds("tiny", OURS)
    history.let_go("tiny", THEIRS)
    assert history.holds("tiny", OURS)
    history.let_go("tiny", OURS)
    assert not history.holds("tiny", OURS)
