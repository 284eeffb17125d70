"""Artifacts come from S3 once, whole and verified, or not at all."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_runtime import artifacts
from inference_runtime.manifest import Artifact, ArtifactError
from tests.unit import fake_s3
from tests.unit.fake_s3 import FakeS3
from tests.unit.runtime import tiny

BUCKET = "models"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with fake_s3.configured(monkeypatch) as found:
        yield found


@pytest.fixture
def published(s3: FakeS3, tmp_path: Path) -> tuple[Artifact, str]:
    artifact = tiny.doubler(tmp_path / "source", files={"vocab.txt": b"words"})
    prefix = f"doubler/{artifact.manifest.sha256}"
    s3.publish(artifact.folder, f"{BUCKET}/{prefix}")
    return artifact, f"s3://{BUCKET}/{prefix}/"


def test_an_artifact_is_downloaded_whole(published: tuple[Artifact, str], tmp_path: Path) -> None:
    source, uri = published
    fetched = artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")
    assert fetched.manifest == source.manifest
    for path in source.folder.iterdir():
        assert (fetched.folder / path.name).read_bytes() == path.read_bytes()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [source.manifest.sha256]


def test_a_second_fetch_asks_s3_for_nothing(
    published: tuple[Artifact, str], s3: FakeS3, tmp_path: Path
) -> None:
    source, uri = published
    first = artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")
    for path in source.folder.iterdir():
        del s3.objects[f"{BUCKET}/doubler/{source.manifest.sha256}/{path.name}"]
    assert artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache") == first


def test_a_damaged_cache_is_discarded_and_filled_again(
    published: tuple[Artifact, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, uri = published
    first = artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")
    (first.folder / "vocab.txt").write_bytes(b"sword")
    with caplog.at_level(logging.WARNING):
        again = artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")
    assert (again.folder / "vocab.txt").read_bytes() == b"words"
    assert "vocab.txt" in caplog.records[0].__dict__["reason"]


def test_a_corrupt_object_is_refused_by_name_and_nothing_is_cached(
    published: tuple[Artifact, str], s3: FakeS3, tmp_path: Path
) -> None:
    source, uri = published
    s3.objects[f"{BUCKET}/doubler/{source.manifest.sha256}/vocab.txt"] = b"sword"
    with pytest.raises(ArtifactError, match=r"vocab\.txt: SHA-256 is"):
        artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_manifest_of_another_artifact_is_refused_before_its_files_are_read(
    published: tuple[Artifact, str], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: SHA-256 is"):
        artifacts.fetch(published[1], "0" * 64, tmp_path / "cache")


def test_a_missing_object_is_named(published: tuple[Artifact, str], s3: FakeS3, tmp_path: Path) -> None:
    source, uri = published
    del s3.objects[f"{BUCKET}/doubler/{source.manifest.sha256}/vocab.txt"]
    with pytest.raises(ArtifactError, match=rf"{uri}vocab\.txt: .*404"):
        artifacts.fetch(uri, source.manifest.sha256, tmp_path / "cache")


@pytest.mark.parametrize("uri", ["", "models/x", "https://models/x", "s3://models", "s3:///x"])
def test_an_address_that_is_not_an_artifacts_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="must be s3://<bucket>/<prefix>/"):
        artifacts.fetch(uri, "0" * 64, tmp_path)


def test_a_process_that_loses_the_race_uses_the_winners_copy(
    published: tuple[Artifact, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, uri = published
    cache = tmp_path / "cache"
    download = artifacts._download

    def slower(*args: Any) -> None:
        monkeypatch.setattr(artifacts, "_download", download)
        artifacts.fetch(uri, source.manifest.sha256, cache)
        download(*args)

    monkeypatch.setattr(artifacts, "_download", slower)
    assert artifacts.fetch(uri, source.manifest.sha256, cache).folder == cache / source.manifest.sha256
    assert [path.name for path in cache.iterdir()] == [source.manifest.sha256]
