"""CloudFormation custom resource: brings a model artifact into the models bucket.

ResourceProperties:
    Model, Sha256           what the artifact must be: the model's name and the artifact's id
    AssetBucket, AssetKey   where it comes from: a zip, unpacked and verified here; or
    SourceUri               s3://bucket/folder/, copied inside S3: too large to pass through a function.
                            Its manifest is verified here, its files by whatever loads them
    ModelsBucket            receives <Model>/<Sha256>/<file>
    LiveParameter           SSM parameter created with Sha256 if it does not exist, and never changed

Deleting the resource deletes nothing: a version may be live, or be what a rollback needs.
"""

import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from custom_resource import respond

from inference_runtime.manifest import FILE_NAME, Artifact, ArtifactError, Manifest, parse, verify

ALWAYS = ("Model", "Sha256", "ModelsBucket", "LiveParameter")
ASSET = ("AssetBucket", "AssetKey")
SOURCE = ("SourceUri",)

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event: dict[str, Any], context: Any) -> None:
    respond(event, _published)


def _published(event: dict[str, Any]) -> str:
    if event["RequestType"] == "Delete":
        return str(event["PhysicalResourceId"])
    return publish(event["ResourceProperties"])


def publish(properties: dict[str, str]) -> str:
    """Make sure that the artifact is in the models bucket and that some version is live; return its URI.

    Raises:
        ValueError: a property is missing.
        ArtifactError: the zip or folder does not hold the artifact.
    """
    required = ALWAYS + (SOURCE if "SourceUri" in properties else ASSET)
    missing = [name for name in required if not properties.get(name)]
    if missing:
        raise ValueError(f"ResourceProperties lack {', '.join(missing)}")
    model, sha256, bucket = properties["Model"], properties["Sha256"], properties["ModelsBucket"]
    prefix = f"{model}/{sha256}"
    s3 = boto3.client("s3")
    if not _exists(s3, bucket, f"{prefix}/{FILE_NAME}"):
        if "SourceUri" in properties:
            _copy(s3, properties, bucket, prefix)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                artifact = _unpack(s3, properties, Path(scratch))
                _upload(s3, artifact, bucket, prefix)
    _make_live_if_nothing_is(properties["LiveParameter"], sha256)
    return f"s3://{bucket}/{prefix}/"


def _unpack(s3: Any, properties: dict[str, str], scratch: Path) -> Artifact:
    archive, folder = scratch / "asset.zip", scratch / "artifact"
    s3.download_file(properties["AssetBucket"], properties["AssetKey"], str(archive))
    with zipfile.ZipFile(archive) as asset:
        # extractall keeps every member inside the folder, whatever its name says.
        asset.extractall(folder)
    archive.unlink()
    artifact = verify(folder, properties["Sha256"])
    _check_name(artifact.manifest, properties["Model"])
    return artifact


def _check_name(manifest: Manifest, model: str) -> None:
    if manifest.name != model:
        raise ArtifactError(f"the artifact is of {manifest.name!r}, expected {model!r}")


def _copy(s3: Any, properties: dict[str, str], bucket: str, prefix: str) -> None:
    """Copy the folder at SourceUri inside S3: every file that its manifest names, the manifest last."""
    source, _, folder = properties["SourceUri"].removeprefix("s3://").partition("/")
    content = s3.get_object(Bucket=source, Key=folder + FILE_NAME)["Body"].read()
    manifest = parse(content, properties["Sha256"])
    _check_name(manifest, properties["Model"])
    for name, entry in manifest.files.items():
        size = s3.head_object(Bucket=source, Key=folder + name)["ContentLength"]
        if size != entry.size:
            raise ArtifactError(f"{name} has {size} bytes, the manifest says {entry.size}")
        s3.copy({"Bucket": source, "Key": folder + name}, bucket, f"{prefix}/{name}")
        logger.info("copied s3://%s/%s/%s", bucket, prefix, name)
    s3.put_object(Bucket=bucket, Key=f"{prefix}/{FILE_NAME}", Body=content)


def _upload(s3: Any, artifact: Artifact, bucket: str, prefix: str) -> None:
    # The manifest goes last: where it is, everything is.
    for name in (*artifact.manifest.files, FILE_NAME):
        s3.upload_file(str(artifact.folder / name), bucket, f"{prefix}/{name}")
        logger.info("uploaded s3://%s/%s/%s", bucket, prefix, name)


def _exists(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise
    return True


def _make_live_if_nothing_is(parameter: str, sha256: str) -> None:
    ssm = boto3.client("ssm")
    try:
        ssm.put_parameter(Name=parameter, Value=sha256, Type="String", Overwrite=False)
    except ssm.exceptions.ParameterAlreadyExists:
        logger.info("%s keeps the version that is live", parameter)
