"""An AWS account of moto's, for tests where one service is enough."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto import mock_aws


@contextmanager
def mocked_aws(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    """boto3 reaches moto and nothing else; `variables` are the environment of the code that is tested."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield


def create_releases() -> None:
    """The table `releases`, keyed as the release stack's is."""
    keys = [("model", "HASH"), ("entry", "RANGE")]
    boto3.client("dynamodb").create_table(
        TableName="releases",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
    )
