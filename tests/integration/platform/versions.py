"""Versions of the sample models: how tests make them, upload or store them, and how their releases end."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from app import ROOT
from inferctl import releases
from inferctl.releases import Release
from inference_runtime import manifest
from inference_runtime.manifest import FILE_NAME, Artifact, TensorSpec
from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import MODELS


def version_of(
    model: str,
    folder: Path,
    version: str,
    files: Mapping[str, bytes] | None = None,
    *,
    outputs: Sequence[TensorSpec] | None = None,
    like: Path | None = None,
) -> Artifact:
    """The model's artifact as another version, in a folder that it makes.

    Args:
        files: what is replaced or added, by name.
        outputs: the signature's, if they are others than the model's.
        like: the folder of the artifact that it is like, if not the sample model's.
    """
    built = like or ROOT / "build" / "artifacts" / model
    shutil.copytree(built, folder)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    known = manifest.verify(built).manifest
    manifest.write(
        folder, name=model, version=version, model=known.model,
        handler="handler.py" if (folder / "handler.py").exists() else None,
        inputs=known.inputs, outputs=known.outputs if outputs is None else outputs,
    )  # fmt: skip
    return manifest.verify(folder)


def upload(platform: Platform, artifact: Artifact, prefix: str = "", **metadata: str) -> str:
    """What a pipeline does with S3 alone; returns the folder's address."""
    prefix = prefix or incoming(artifact)
    upload_files(platform, artifact, prefix)
    content = (artifact.folder / FILE_NAME).read_bytes()
    platform.aws("s3").put_object(Bucket=MODELS, Key=prefix + FILE_NAME, Body=content, Metadata=metadata)
    return f"s3://{MODELS}/{prefix}"


def incoming(artifact: Artifact) -> str:
    """Where pipelines upload it to."""
    return f"incoming/{artifact.manifest.name}/{artifact.manifest.version}/"


def upload_files(platform: Platform, artifact: Artifact, prefix: str) -> None:
    """All of it but the manifest, so far."""
    for name in artifact.manifest.files:
        platform.aws("s3").upload_file(str(artifact.folder / name), MODELS, prefix + name)


def stored(
    platform: Platform,
    model: str,
    version: str,
    *,
    handler: str | None = None,
    damage: Mapping[str, bytes] | None = None,
    like: Path | None = None,
) -> str:
    """Put a version to where releases keep those that were validated; its artifact's SHA-256.

    Args:
        handler: source of a `handler.py` of its own.
        damage: files that are other than the manifest says.
        like: the folder of the artifact that it is like, if not the sample model's.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = {} if handler is None else {"handler.py": handler.encode()}
        artifact = version_of(model, Path(scratch) / "version", version, files, like=like)
        for name, content in (damage or {}).items():
            (artifact.folder / name).write_bytes(content)
        sha256 = artifact.manifest.sha256
        upload(platform, artifact, f"{model}/{sha256}/")
    return sha256


def of_artifact(platform: Platform, model: str, sha256: str) -> list[Release]:
    """The releases of an artifact, the latest first."""
    every = releases.history(platform.deployed.aws, "local", model)
    return [one for one in every if one.sha256 == sha256]


def over(platform: Platform, model: str, sha256: str, count: int = 1) -> Release:
    """The latest release of an artifact, once `count` of them have ended."""

    def ended() -> Release | None:
        found = of_artifact(platform, model, sha256)
        return found[0] if len([one for one in found if one.ended]) == count else None

    release: Release = until(ended, timeout=120)
    return release
