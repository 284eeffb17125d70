"""Fetching a model's data from S3 as its execution role, and laying it out as the container expects it."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions

from local_aws import roles
from local_aws.sagemaker.resources import Scope
from local_aws.wire import Json


class ModelDataError(Exception):
    """The model data could not be fetched; the message is what DescribeEndpoint says."""


def fetch(scope: Scope, container: Json, credentials: roles.Credentials | None, folder: Path) -> None:
    """Fill `folder` with the model data that `container` names and make it read-only, as /opt/ml/model is.

    A container without model data gets an empty folder. Raises ModelDataError if S3 refuses or has nothing.
    """
    folder.mkdir(parents=True)
    source = _source(container)
    if source is not None:
        uri, prefix, compressed = source
        if credentials is None:
            raise ModelDataError(f"The model has data at {uri} but no ExecutionRoleArn to read it with.")
        try:
            _download(roles.client("s3", scope.region, credentials), uri, prefix, folder)
        except (
            botocore.exceptions.ClientError,
            botocore.exceptions.BotoCoreError,
            FileNotFoundError,
        ) as error:
            raise ModelDataError(
                f'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure '
                "that there is an object located at the URL and that the role passed to CreateModel has "
                f"permissions to download the model. ({error})"
            ) from error
        if compressed:
            _unpack(folder)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _source(container: Json) -> tuple[str, bool, bool] | None:
    """(S3 URI, whether it is a prefix, whether it is a gzipped tar), or None when there is no model data."""
    data = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if data:
        return data["S3Uri"], data["S3DataType"] == "S3Prefix", data["CompressionType"] == "Gzip"
    if container.get("ModelDataUrl"):
        return container["ModelDataUrl"], False, True
    return None


def _download(s3: Any, uri: str, prefix: bool, folder: Path) -> None:
    parts = urlsplit(uri)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if not prefix:
        s3.download_file(bucket, key, str(folder / Path(key).name))
        return
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    keys = [
        item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")
    ]
    if not keys:
        raise FileNotFoundError(f"no object under {uri}")
    for name in keys:
        target = (folder / name.removeprefix(key)).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise FileNotFoundError(f"the key {name} leads out of the model folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, name, str(target))


def _unpack(folder: Path) -> None:
    for archive in list(folder.iterdir()):
        try:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise ModelDataError(
                f"The model data {archive.name} is not a gzipped tar archive: {error}"
            ) from error
        archive.unlink()
