"""Artifacts from S3, kept in a local cache that holds only verified folders.

The cache is content-addressed: `<cache>/<sha256>/`. A download fills a private folder beside it, which is
renamed into place once verified, so a reader sees a whole artifact or none, whoever else is downloading.
"""

import logging
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from inference_runtime import s3
from inference_runtime.manifest import FILE_NAME, Artifact, ArtifactError, parse, verify

logger = logging.getLogger(__name__)


def fetch(uri: str, sha256: str, cache: Path) -> Artifact:
    """The artifact `sha256` at `uri` (`s3://bucket/prefix/`), downloaded into `cache` if need be.

    Raises:
        ArtifactError: the artifact cannot be downloaded, or what was downloaded is not the artifact.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        raise ArtifactError(f"{uri!r} is not an artifact's address; it must be s3://<bucket>/<prefix>/")
    bucket, prefix = parts.netloc, parts.path.strip("/")

    folder = cache / sha256
    if folder.exists():
        try:
            return verify(folder, sha256)
        except ArtifactError as error:
            logger.warning("cached artifact discarded", extra={"reason": str(error), "artifact": sha256})
            shutil.rmtree(folder, ignore_errors=True)

    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        partial = Path(scratch) / sha256
        partial.mkdir()
        _download(bucket, prefix, sha256, partial)
        manifest = verify(partial, sha256).manifest
        try:
            partial.rename(folder)
        except OSError:
            # Another process renamed its own copy first.
            return verify(folder, sha256)
    return Artifact(folder, manifest)


def _download(bucket: str, prefix: str, sha256: str, folder: Path) -> None:
    def get(name: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            s3.download(bucket, f"{prefix}/{name}", path)
        except s3.S3Error as error:
            raise ArtifactError(f"s3://{bucket}/{prefix}/{name}: {error}") from error
        return path

    # The manifest is checked before its names are used as paths.
    for name in parse(get(FILE_NAME).read_bytes(), sha256).files:
        get(name)
