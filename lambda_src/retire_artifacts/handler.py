"""Retires model artifacts that the last releases left behind, and takes back what is needed again.

Runs once a day, and whenever a release makes another version live. Environment:

    MODELS_BUCKET   holds artifacts as <model>/<sha256>/<file>
    LIVE_PARAMETER  SSM parameter of a model's live version, with {model} in it; its history are the releases
    RELEASES        how many of the last different versions of a model are kept, 2 or more
    RETIRED_DAYS    how long an older one stays usable

An artifact that is none of the last RELEASES, and that was written before the oldest of them became live,
gets the tag `inference:retired=<date>` on its objects. RETIRED_DAYS later the tag becomes `expiring`, and
S3's lifecycle deletes the objects within about two days. An artifact that is kept loses the tag. So does one
that is younger than the oldest kept release: it may be about to be released. Nothing here deletes anything.

Invariant: once a run is over, neither the live version nor the one before it carries the tag. Releases and
other runs may happen at any moment, so a run looks at the history again *after* it has tagged, and undoes
what is now wrong. A release that comes later still starts a run of its own.

Event {"dry_run": true}: say what would be done, and do nothing. The answer, by model, is what was done to
which artifact: {"model": {"<sha256>": "retired" | "expiring" | "taken back"}}.
"""

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import boto3

TAG = "inference:retired"
EXPIRING = "expiring"
ARTIFACT = re.compile(r"(?P<model>[^/]+)/(?P<sha256>[0-9a-f]{64})/.+")

LONG_AGO = datetime.min.replace(tzinfo=UTC)

logger = logging.getLogger()
logger.setLevel(logging.INFO)

Report = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Release:
    """A version became live at a time."""

    sha256: str
    at: datetime


@dataclass
class Folder:
    """An artifact's objects; `written` is when the youngest came."""

    keys: list[str] = field(default_factory=list)
    written: datetime = LONG_AGO


class Incomplete(Exception):
    """Some models could not be looked at; the others were."""


def handler(event: dict[str, Any], context: Any) -> Report:
    """Look at every model; one that fails does not keep the others from their turn.

    Raises:
        Incomplete: with the names of the models that failed; the log says why.
    """
    platform = Platform(
        s3=boto3.client("s3"),
        ssm=boto3.client("ssm"),
        bucket=os.environ["MODELS_BUCKET"],
        live_parameter=os.environ["LIVE_PARAMETER"],
        releases=int(os.environ["RELEASES"]),
        retired_days=int(os.environ["RETIRED_DAYS"]),
        dry_run=event.get("dry_run") is True,
        today=datetime.now(UTC).date(),
    )
    report, failed = {}, []
    for model, folders in platform.artifacts().items():
        try:
            if done := platform.tend(model, folders):
                report[model] = done
        except Exception:
            logger.exception("%s: artifacts not looked at", model)
            failed.append(model)
    logger.info(json.dumps({"dry_run": platform.dry_run, "artifacts": report}))
    if failed:
        raise Incomplete(", ".join(failed))
    return report


def kept(history: Sequence[Release], releases: int) -> list[Release]:
    """The last `releases` different versions, the live one first, each when it last became live.

    The history is in order. The version before the live one is always the second.
    """
    last: dict[str, Release] = {}
    for release in reversed(history):
        last.setdefault(release.sha256, release)
    return list(last.values())[:releases]


def left_behind(history: Sequence[Release], folders: dict[str, Folder], releases: int) -> set[str]:
    """The artifacts that are none of the last `releases` and older than all of them.

    Nothing is, as long as there were fewer: then no release was left behind.
    """
    keep = kept(history, releases)
    if len(keep) < releases:
        return set()
    oldest = min(release.at for release in keep)
    needed = {release.sha256 for release in keep}
    return {sha256 for sha256, folder in folders.items() if sha256 not in needed and folder.written < oldest}


@dataclass(frozen=True)
class Platform:
    """One run over one environment's artifacts."""

    s3: Any
    ssm: Any
    bucket: str
    live_parameter: str
    releases: int
    retired_days: int
    dry_run: bool
    today: date

    def artifacts(self) -> dict[str, dict[str, Folder]]:
        """What is in the bucket: model -> sha256 -> its objects."""
        models: dict[str, dict[str, Folder]] = defaultdict(lambda: defaultdict(Folder))
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for entry in page.get("Contents", ()):
                if found := ARTIFACT.fullmatch(entry["Key"]):
                    folder = models[found["model"]][found["sha256"]]
                    folder.keys.append(entry["Key"])
                    folder.written = max(folder.written, entry["LastModified"])
        return models

    def history(self, model: str) -> list[Release]:
        """A model's releases in order, as far back as Parameter Store remembers: a hundred."""
        pages = self.ssm.get_paginator("get_parameter_history").paginate(
            Name=self.live_parameter.format(model=model)
        )
        try:
            versions = [version for page in pages for version in page["Parameters"]]
        except self.ssm.exceptions.ParameterNotFound:
            return []
        return [
            Release(version["Value"], version["LastModifiedDate"])
            for version in sorted(versions, key=lambda version: version["Version"])
        ]

    def tend(self, model: str, folders: dict[str, Folder]) -> dict[str, str]:
        """Bring the tags of one model's artifacts in line with its releases; what was done to which."""
        done = {}
        for sha256 in self._left_behind(model, folders):
            if did := self._retire(folders[sha256]):
                done[sha256] = did
        # After the tags, not before: whoever is released by now finds its artifact whole.
        for sha256 in folders.keys() - self._left_behind(model, folders):
            if self._take_back(folders[sha256]):
                done[sha256] = "taken back"
        return done

    def _left_behind(self, model: str, folders: dict[str, Folder]) -> set[str]:
        return left_behind(self.history(model), folders, self.releases)

    def _retire(self, folder: Folder) -> str | None:
        """Tag the objects that are not tagged; those whose time is over, as expiring."""
        tags = [self._tags(key).get(TAG) for key in folder.keys]
        dates = [_date(tag) for tag in tags if tag != EXPIRING]
        if None in dates:
            # New, or a run broke off between the objects: all of them have the time from today.
            value = self.today.isoformat()
        elif any((self.today - since).days < self.retired_days for since in dates if since):
            return None
        else:
            value = EXPIRING
        changed = [key for key, old in zip(folder.keys, tags, strict=True) if old != value]
        for key in changed:
            self._tag(key, value)
        if not changed:
            return None
        return "expiring" if value == EXPIRING else "retired"

    def _take_back(self, folder: Folder) -> bool:
        tagged = [key for key in folder.keys if TAG in self._tags(key)]
        for key in tagged:
            self._tag(key, None)
        return bool(tagged)

    def _tags(self, key: str) -> dict[str, str]:
        tags = self.s3.get_object_tagging(Bucket=self.bucket, Key=key)["TagSet"]
        return {tag["Key"]: tag["Value"] for tag in tags}

    def _tag(self, key: str, value: str | None) -> None:
        """Set the tag, or take it off; S3 replaces an object's tags as a whole."""
        if self.dry_run:
            return
        tags = self._tags(key)
        tags.pop(TAG, None)
        if value is not None:
            tags[TAG] = value
        if not tags:
            self.s3.delete_object_tagging(Bucket=self.bucket, Key=key)
            return
        self.s3.put_object_tagging(
            Bucket=self.bucket,
            Key=key,
            Tagging={"TagSet": [{"Key": name, "Value": text} for name, text in tags.items()]},
        )


def _date(tag: str | None) -> date | None:
    """The date in a tag; None for what is none."""
    try:
        return date.fromisoformat(tag or "")
    except ValueError:
        return None
