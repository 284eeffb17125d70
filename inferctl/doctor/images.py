"""Whether the images of the GPU models are there, or can be built here."""

import os
import shutil
from collections.abc import Iterator

from botocore.exceptions import ClientError

from catalog.environment import EcrImage
from inferctl.doctor.preflight import FAILED, OK, Finding, Preflight

_ABSENT = ("ImageNotFoundException", "RepositoryNotFoundException")


def images(preflight: Preflight) -> Iterator[Finding]:
    for container in sorted({model.gpu.container for model in preflight.gpu_models}):
        source = preflight.environment.containers[container]
        if preflight.environment.is_local:
            yield Finding(f"image: {container}", OK, "the embedded AWS runs the container's own code")
        elif source.in_ecr is None:
            yield _builder(container)
        else:
            yield _in_registry(preflight, container, source.in_ecr)


def _builder(container: str) -> Finding:
    builder = os.environ.get("CDK_DOCKER", "docker")
    if shutil.which(builder):
        return Finding(f"image: {container}", OK, f"built by {builder} when it is deployed")
    return Finding(
        f"image: {container}",
        FAILED,
        f"is to be built, and {builder} is not installed here",
        f"install it, name another builder in CDK_DOCKER, or give containers.{container}.image_uri",
    )


def _in_registry(preflight: Preflight, container: str, there: EcrImage) -> Finding:
    image = {"imageDigest": there.digest} if there.digest else {"imageTag": there.tag}
    try:
        preflight.client("ecr", there.region).describe_images(
            registryId=there.account, repositoryName=there.repository, imageIds=[image]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] not in _ABSENT:
            raise
        return Finding(
            f"image: {container}",
            FAILED,
            f"{there.uri} is not there: {error.response['Error']['Code']}",
            f"push it, or correct containers.{container}.image_uri in {preflight.config}",
        )
    return Finding(f"image: {container}", OK, there.uri)
