"""Publishing a version: checked here, uploaded with its manifest last, and its release followed to its end.

It is what any pipeline can do with two calls of S3 (docs/releases.md): upload the files to
`incoming/<model>/<version>/` in the models bucket, then `manifest.json`.
"""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.exceptions import ClientError

from catalog.environment import Environment
from catalog.model import ModelSpec
from catalog.names import INCOMING, Names
from inferctl import releases
from inferctl.environment import ROOT, Aws, is_refusal
from inferctl.errors import InferctlError, InputError
from inferctl.output import Board
from inferctl.releases import LIVE, Release
from inference_runtime import admission
from inference_runtime.manifest import FILE_NAME, Artifact, ArtifactError, Manifest, parse, verify

POLL_SECONDS = 1.0
START_SECONDS = 120
"""An upload's release is there within seconds, unless its event waits to be tried again."""

FILES_AT_ONCE = 4
MAX_WHY = 500
"""Characters: S3 takes 2 KB of metadata, percent-encoded."""


@dataclass(frozen=True)
class Source:
    """What is published: an artifact's manifest, its bytes, and where the files are: a folder, or S3."""

    manifest: Manifest
    content: bytes
    folder: Path | None = None
    bucket: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Publication:
    """A version on its way into an environment."""

    aws: Aws
    names: Names
    bucket: str
    model: ModelSpec
    source: Source

    @property
    def version(self) -> str:
        return self.source.manifest.version

    @property
    def sha256(self) -> str:
        return self.source.manifest.sha256

    @property
    def prefix(self) -> str:
        """Where the files go."""
        return f"{INCOMING}/{self.model.name}/{self.version}/"


def prepare(aws: Aws, environment: Environment, model: ModelSpec, source: str) -> Publication:
    """Find the artifact at `source`: a folder with a manifest, a model's own folder, or an address in S3.

    Raises:
        InputError: there is no artifact, it is damaged, or it is another model's.
    """
    names = Names(environment.name)
    account = environment.account or aws.client("sts").get_caller_identity()["Account"]
    try:
        found = _in_s3(aws, source) if source.startswith("s3://") else _in_folder(Path(source), model)
    except ArtifactError as error:
        raise InputError(f"{source}: {error}") from error
    if found.manifest.name != model.name:
        raise InputError(f"{source} is an artifact of {found.manifest.name!r}, not of {model.name!r}.")
    return Publication(aws, names, names.bucket("models", account, environment.region), model, found)


def live(publication: Publication) -> Manifest | None:
    """The version that is served now; None before a model's first."""
    sha256 = _live_sha256(publication)
    if sha256 is None:
        return None
    key = f"{publication.model.name}/{sha256}/{FILE_NAME}"
    answer = publication.aws.client("s3").get_object(Bucket=publication.bucket, Key=key)
    return parse(answer["Body"].read(), sha256)


def _live_sha256(publication: Publication) -> str | None:
    ssm = publication.aws.client("ssm")
    name = publication.names.live_parameter(publication.model.name)
    try:
        return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


def check(publication: Publication, served: Manifest | None, *, breaking: bool) -> None:
    """Refuse what the validator would refuse, as far as that shows without running it.

    Raises InputError with every reason.
    """
    source, version = publication.source, publication.version
    reasons = []
    if source.folder:
        artifact = Artifact(source.folder, source.manifest)
        pickles = publication.model.artifact.pickles
        reasons = admission.problems(artifact, served, breaking=breaking, pickles=pickles)
    elif served and not breaking:
        reasons = admission.incompatibilities(served, source.manifest)
    known = served.sha256 if served and served.version == version else _claimed(publication)
    if known not in (None, publication.sha256):
        reasons.append(
            f"version {version} is {str(known)[:12]} in {publication.names.environment}, and never changes: "
            f"publish {publication.sha256[:12]} as another version"
        )
    if reasons:
        raise InputError("\n".join([f"{publication.model.name} {version} cannot be released:", *reasons]))


def upload(publication: Publication, board: Board, *, why: str, breaking: bool) -> datetime:
    """Upload the files, then the manifest, which starts the release; returns when that arrived, by S3."""
    source, s3 = publication.source, publication.aws.client("s3")
    step, total = f"upload {publication.model.name} {publication.version}", max(1, source.manifest.size)
    lock, done = threading.Lock(), 0

    def moved(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            board.update(step, "working", f"{done * 100 // total} % of {total / 1e6:.1f} MB")

    def send(name: str) -> None:
        key = publication.prefix + name
        if source.folder:
            s3.upload_file(str(source.folder / name), publication.bucket, key, Callback=moved)
        else:
            there = {"Bucket": source.bucket, "Key": source.prefix + name}
            s3.copy(there, publication.bucket, key, Callback=moved)

    with board.step(step):
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            for _ in pool.map(send, source.manifest.files):
                pass
        who = publication.aws.client("sts").get_caller_identity()["Arn"]
        key = publication.prefix + FILE_NAME
        s3.put_object(
            Bucket=publication.bucket,
            Key=key,
            Body=source.content,
            Metadata={"who": quote(who), "why": quote(why), "breaking": str(breaking).lower()},
        )
    arrived: datetime = s3.head_object(Bucket=publication.bucket, Key=key)["LastModified"]
    return arrived


def follow(publication: Publication, since: datetime, board: Board) -> Release:
    """Wait until the upload's release has ended, and return it.

    Raises:
        InferctlError: no release has started.
    """
    step = f"release {publication.model.name} {publication.version}"
    board.update(step, "waiting")
    release = _started(publication, since)
    environment, execution = publication.names.environment, release.execution
    for later in releases.follow(publication.aws, environment, publication.model.name, execution):
        release = later
        board.update(step, "working", release.status.lower())
    board.update(step, "done" if release.status == LIVE else "failed", release.status)
    return release


def _started(publication: Publication, since: datetime) -> Release:
    """The release that the upload started, or that it is part of: the same bytes twice are one release."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for one in releases.history(publication.aws, publication.names.environment, publication.model.name):
            if one.sha256 == publication.sha256 and (
                not one.ended or one.status == LIVE or datetime.fromisoformat(one.started) >= since
            ):
                return one
        time.sleep(POLL_SECONDS)
    raise InferctlError(
        f"The upload is there, but no release has started within {START_SECONDS} s. Look at the "
        "environment's dead letters (docs/runbooks.md#dead-letters)."
    )


def _in_folder(folder: Path, model: ModelSpec) -> Source:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.")
    if not (folder / FILE_NAME).is_file():
        if folder.resolve() != ROOT / "models" / model.name:
            raise InputError(
                f"{folder} has no {FILE_NAME}, and is not models/{model.name}, from which one can be built."
            )
        build = subprocess.run([sys.executable, ROOT / "models" / "build.py", model.name], cwd=ROOT)
        if build.returncode:
            raise InputError(f"The artifact of {model.name} cannot be built; see above.")
        folder = ROOT / "build" / "artifacts" / model.name
    return Source(verify(folder).manifest, (folder / FILE_NAME).read_bytes(), folder=folder)


def _in_s3(aws: Aws, uri: str) -> Source:
    parts = urlsplit(uri)
    prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
    try:
        answer = aws.client("s3").get_object(Bucket=parts.netloc, Key=prefix + FILE_NAME)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchKey", "NoSuchBucket", "404"):
            raise
        raise InputError(f"s3://{parts.netloc}/{prefix}{FILE_NAME} does not exist.") from error
    content = answer["Body"].read()
    return Source(parse(content), content, bucket=parts.netloc, prefix=prefix)


def _claimed(publication: Publication) -> str | None:
    """Which bytes the version is known to be; unknown to who may not read the history."""
    key = {"model": {"S": publication.model.name}, "entry": {"S": f"version#{publication.version}"}}
    try:
        found = publication.aws.client("dynamodb").get_item(
            TableName=publication.names.releases, Key=key, ConsistentRead=True
        )
    except ClientError as error:
        if is_refusal(error):
            return None
        raise
    return str(found["Item"]["sha256"]["S"]) if "Item" in found else None


def document(publication: Publication, release: Release | None) -> dict[str, Any]:
    """What `--json` prints: what was published and, where it was waited for, how its release went."""
    return {
        "model": publication.model.name,
        "version": publication.version,
        "sha256": publication.sha256,
        "release": release.document() if release else None,
    }
