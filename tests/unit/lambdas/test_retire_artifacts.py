"""Which artifacts are retired, and that the live one and the one before it never are."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import ModuleType
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.names import EXPIRING, RETIRED_TAG
from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws

RETIRE = imported("retire_artifacts")
START = datetime(2026, 1, 1, tzinfo=UTC)
LIVE = "/inference/test/models/doubler/live"


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def releases(*names: str) -> list[Any]:
    return [RETIRE.Release(name, at(i)) for i, name in enumerate(names)]


def written(**hours: int) -> dict[str, Any]:
    return {name: RETIRE.Folder([f"doubler/{name}/model.onnx"], at(hour)) for name, hour in hours.items()}


def test_the_tag_is_the_one_that_the_bucket_expires() -> None:
    assert (RETIRE.TAG, RETIRE.EXPIRING) == (RETIRED_TAG, EXPIRING)


class TestWhatIsLeftBehind:
    def test_what_is_none_of_the_last_releases(self) -> None:
        folders = written(a=-4, b=-3, c=-2, d=-1)
        assert RETIRE.left_behind(releases("a", "b", "c", "d"), folders, 2) == {"a", "b"}

    def test_nothing_while_there_were_fewer_releases(self) -> None:
        assert RETIRE.left_behind(releases("a", "b"), written(a=-4, b=-3, old=-9), 3) == set()

    def test_a_release_that_repeats_counts_once(self) -> None:
        folders = written(a=-4, b=-3)
        assert RETIRE.left_behind(releases("a", "b", "b", "b", "b"), folders, 2) == set()

    def test_a_rollback_makes_the_old_version_new(self) -> None:
        folders = written(a=-4, b=-3, c=-2)
        assert RETIRE.left_behind(releases("a", "b", "c", "a"), folders, 2) == {"b"}

    def test_what_never_was_live_goes_once_enough_releases_passed_it_by(self) -> None:
        folders = written(a=-4, b=-3, staged=0)
        assert RETIRE.left_behind(releases("a", "b"), folders, 2) == set()
        assert RETIRE.left_behind(releases("a", "b", "c"), written(a=-4, b=-3, staged=0, c=1), 2) == {
            "a",
            "staged",
        }

    def test_what_was_published_again_waits_for_its_release(self) -> None:
        assert RETIRE.left_behind(releases("a", "b", "c"), written(a=5, b=-3, c=-2), 2) == set()


NAMES = st.sampled_from("abcdefg")


@given(
    history=st.lists(NAMES, min_size=1, max_size=30),
    ages=st.fixed_dictionaries({name: st.integers(-5, 40) for name in "abcdefg"}),
    keep=st.integers(2, 6),
)
@settings(deadline=None)
def test_live_and_previous_are_never_left_behind(history: list[str], ages: dict[str, int], keep: int) -> None:
    different = list(dict.fromkeys(reversed(history)))
    gone = RETIRE.left_behind(releases(*history), written(**ages), keep)
    assert not gone & set(different[:keep])
    assert len(different) >= keep or not gone
    oldest = history[::-1].index(different[keep - 1]) if len(different) >= keep else 0
    assert all(at(ages[name]) < at(len(history) - 1 - oldest) for name in gone)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    settings = {
        "MODELS_BUCKET": "models",
        "LIVE_PARAMETER": "/inference/test/models/{model}/live",
        "RELEASES": "2",
        "RETIRED_DAYS": "30",
    }
    with mocked_aws(monkeypatch, **settings):
        boto3.client("s3").create_bucket(Bucket="models")
        yield imported("retire_artifacts")


def publish(version: str, model: str = "doubler") -> None:
    for name in ("manifest.json", "model.onnx"):
        boto3.client("s3").put_object(Bucket="models", Key=f"{model}/{sha(version)}/{name}", Body=b"x")


def release(version: str, model: str = "doubler") -> None:
    name = f"/inference/test/models/{model}/live"
    boto3.client("ssm").put_parameter(Name=name, Value=sha(version), Type="String", Overwrite=True)


def tags(version: str, model: str = "doubler") -> set[str | None]:
    """The values of the tag on the objects of an artifact."""
    found: set[str | None] = set()
    for name in ("manifest.json", "model.onnx"):
        key = f"{model}/{sha(version)}/{name}"
        tagset = boto3.client("s3").get_object_tagging(Bucket="models", Key=key)["TagSet"]
        found.add({tag["Key"]: tag["Value"] for tag in tagset}.get(RETIRED_TAG))
    return found


def later(aws: ModuleType, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls.fromtimestamp((datetime.now(UTC) + timedelta(days=days)).timestamp(), tz)

    monkeypatch.setattr(aws, "datetime", Clock)


@pytest.fixture
def four(aws: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Four versions, released one after the other, an hour apart."""
    for version in "abcd":
        publish(version)
        release(version)
    history = aws.Platform.history

    def apart(self: Any, model: str) -> list[Any]:
        # moto dates all of them within one second; artifacts came before any release.
        return [
            aws.Release(r.sha256, r.at + timedelta(hours=i + 1)) for i, r in enumerate(history(self, model))
        ]

    monkeypatch.setattr(aws.Platform, "history", apart)
    return aws


def test_old_artifacts_are_dated_then_expire_and_others_are_not_touched(
    four: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert four.handler({}, None) == {"doubler": {sha("a"): "retired", sha("b"): "retired"}}
    today = datetime.now(UTC).date()
    assert tags("a") == tags("b") == {today.isoformat()}
    assert tags("c") == tags("d") == {None}

    later(four, monkeypatch, 29)
    assert four.handler({}, None) == {}
    later(four, monkeypatch, 30)
    assert four.handler({}, None) == {"doubler": {sha("a"): "expiring", sha("b"): "expiring"}}
    assert tags("a") == {EXPIRING}
    assert four.handler({}, None) == {}
    assert tags("c") == tags("d") == {None}


def test_a_version_that_is_released_again_is_taken_back(four: ModuleType) -> None:
    four.handler({}, None)
    release("a")
    assert four.handler({}, None) == {"doubler": {sha("a"): "taken back", sha("c"): "retired"}}
    assert tags("a") == {None}


def test_a_dry_run_says_what_it_would_do_and_does_nothing(four: ModuleType) -> None:
    assert four.handler({"dry_run": True}, None) == {"doubler": {sha("a"): "retired", sha("b"): "retired"}}
    assert tags("a") == tags("b") == {None}


def test_other_tags_of_an_object_stay(four: ModuleType) -> None:
    key = f"doubler/{sha('a')}/model.onnx"
    boto3.client("s3").put_object_tagging(
        Bucket="models", Key=key, Tagging={"TagSet": [{"Key": "team", "Value": "ml"}]}
    )
    four.handler({}, None)
    found = boto3.client("s3").get_object_tagging(Bucket="models", Key=key)["TagSet"]
    assert {tag["Key"] for tag in found} == {"team", RETIRED_TAG}


def test_a_release_in_the_middle_of_a_run_wins(four: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = four.Platform._tag

    def released_meanwhile(self: Any, key: str, value: str | None) -> None:
        tag(self, key, value)
        if sha("a") in key and value is not None:
            monkeypatch.setattr(four.Platform, "_tag", tag)
            release("a")

    monkeypatch.setattr(four.Platform, "_tag", released_meanwhile)
    four.handler({}, None)
    assert tags("a") == {None}


def test_a_run_that_broke_off_is_finished_by_the_next(four: ModuleType) -> None:
    key = f"doubler/{sha('a')}/manifest.json"
    half = {"TagSet": [{"Key": RETIRED_TAG, "Value": date(2026, 1, 1).isoformat()}]}
    boto3.client("s3").put_object_tagging(Bucket="models", Key=key, Tagging=half)
    four.handler({}, None)
    assert tags("a") == {datetime.now(UTC).date().isoformat()}


def test_a_model_that_fails_is_named_and_the_others_have_their_turn(
    four: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("a", model="broken")
    history = four.Platform.history

    def fails(self: Any, model: str) -> list[Any]:
        if model == "broken":
            raise ConnectionError("gone")
        result: list[Any] = history(self, model)
        return result

    monkeypatch.setattr(four.Platform, "history", fails)
    with pytest.raises(four.Incomplete, match=r"^broken$"):
        four.handler({}, None)
    assert tags("a") != {None}


def test_a_model_without_releases_keeps_everything(aws: ModuleType) -> None:
    publish("a", model="unreleased")
    boto3.client("s3").put_object(Bucket="models", Key="not-an-artifact", Body=b"x")
    assert aws.handler({}, None) == {}
