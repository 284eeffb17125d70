"""Versions of the sample models as pipelines upload them, and how their releases end."""

import shutil
from pathlib import Path

from app import ROOT
from inferctl import releases
from inferctl.releases import Release
from inference_runtime import manifest
from inference_runtime.manifest import FILE_NAME, Artifact
from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.releasing import MODELS


def version_of(model: str, folder: Path, version: str, **files: bytes) -> Artifact:
    """The model's artifact as another version, with some files replaced or added."""
    shutil.copytree(ROOT / "build" / "artifacts" / model, folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    known = manifest.verify(ROOT / "build" / "artifacts" / model).manifest
    manifest.write(
        folder, name=model, version=version, model=known.model,
        handler="handler.py" if (folder / "handler.py").exists() else None,
        inputs=known.inputs, outputs=known.outputs,
    )  # fmt: skip
    return manifest.verify(folder)


def upload(platform: Platform, artifact: Artifact, prefix: str = "", **metadata: str) -> str:
    """What a pipeline does with S3 alone; returns the folder's address."""
    s3, found = platform.aws("s3"), artifact.manifest
    prefix = prefix or f"incoming/{found.name}/{found.version}/"
    for name in found.files:
        s3.upload_file(str(artifact.folder / name), MODELS, prefix + name)
    content = (artifact.folder / FILE_NAME).read_bytes()
    s3.put_object(Bucket=MODELS, Key=prefix + FILE_NAME, Body=content, Metadata=metadata)
    return f"s3://{MODELS}/{prefix}"


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
