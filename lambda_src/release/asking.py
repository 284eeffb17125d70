"""Which artifact a model says it runs: asked of what serves, not of the service that deployed it."""

import json
import os
from typing import Any

import boto3
from api_client import CallFailed, Token, call
from botocore.exceptions import BotoCoreError, ClientError
from on_lambda import ALIAS, metadata
from outcomes import NotYet
from settings import Settings

_token = Token()


def expect(settings: Settings, sha256: str, *, answers: int) -> None:
    """Ask until `answers` answers in a row have said that artifact.

    Raises:
        NotYet: one of them said another, or there was none.
    """
    for _ in range(answers):
        try:
            said = _ask(settings)
        except (CallFailed, OSError, ClientError, BotoCoreError, ValueError, KeyError) as error:
            raise NotYet(f"{settings.model} does not answer: {error}") from error
        if said != sha256:
            raise NotYet(f"{settings.model} says it runs {said}")


def _ask(settings: Settings) -> str:
    return str(_metadata(settings)["parameters"]["artifact_sha256"])


def _metadata(settings: Settings) -> dict[str, Any]:
    """The model's metadata: through the API as its clients get them, if a client of ours may."""
    if settings.public:
        url = f"{os.environ['API_URL']}/v2/models/{settings.model}"
        try:
            return call(url, {"Authorization": f"Bearer {_token()}"})
        except CallFailed:
            _token.forget()
            raise
    if settings.home == "cpu":
        return metadata(settings, ALIAS)
    return _of_endpoint(settings)


def _of_endpoint(settings: Settings) -> dict[str, Any]:
    component = {} if settings.home == "gpu" else {"InferenceComponentName": settings.name}
    answer = boto3.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=settings.name,
        ContentType="application/json",
        CustomAttributes="op=metadata",
        Body=b"{}",
        **component,
    )
    document: dict[str, Any] = json.load(answer["Body"])
    return document
