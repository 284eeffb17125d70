"""Buckets as their policies leave them: whose keys an upload may use, and who may write a record."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.platform.conftest import Platform

ACCOUNT, REGION = "000000000000", "us-east-1"


def bucket(purpose: str) -> str:
    return f"inference-local-{purpose}-{ACCOUNT}-{REGION}"


def key(platform: Platform, purpose: str) -> str:
    name = f"/inference/local/keys/{purpose}"
    value: str = platform.aws("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return value


@pytest.fixture(scope="module")
def administrator(platform: Platform) -> Iterator[Any]:
    """S3 for somebody whom IAM lets do everything: what is refused, the bucket refuses."""
    iam, name = platform.aws("iam"), "administrator"
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sts:AssumeRole",
    }
    document = {"Version": "2012-10-17", "Statement": [trust]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [everything]}
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=json.dumps(document))
    credentials = platform.aws("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    yield platform.deployed.aws.session.client(
        "s3",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        **platform.deployed.aws.options,
    )
    iam.delete_role_policy(RoleName=name, PolicyName=name)
    iam.delete_role(RoleName=name)


@pytest.mark.parametrize("purpose", ["models", "data"])
def test_an_upload_uses_the_buckets_key_or_none_of_its_own_choice(
    platform: Platform, administrator: Any, purpose: str
) -> None:
    s3 = administrator
    upload: dict[str, Any] = {"Bucket": bucket(purpose), "Key": "inputs/policy-test", "Body": b"x"}
    other = key(platform, "logs")
    for refused in (
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms"},  # the account's default key
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": other},
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.put_object(**upload, **refused)
    s3.put_object(**upload)
    s3.put_object(**upload, ServerSideEncryption="aws:kms", SSEKMSKeyId=key(platform, purpose))
    s3.delete_object(Bucket=bucket(purpose), Key="inputs/policy-test")


@pytest.mark.parametrize("purpose", ["audit", "access-logs"])
def test_not_even_an_administrator_writes_into_a_record(administrator: Any, purpose: str) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        administrator.put_object(Bucket=bucket(purpose), Key="models/forged", Body=b"x")


def test_releases_retire_old_versions_and_a_rollback_takes_one_back(platform: Platform) -> None:
    s3, ssm = platform.aws("s3"), platform.aws("ssm")
    # A model of its own, which nothing serves: only its parameter and its artifacts exist.
    live, versions = "/inference/local/models/retired-test/live", [f"{n:064x}" for n in range(1, 8)]
    objects = {v: {"Bucket": bucket("models"), "Key": f"retired-test/{v}/manifest.json"} for v in versions}

    def retired() -> set[str]:
        tagged = {v: s3.get_object_tagging(**where)["TagSet"] for v, where in objects.items()}
        return {v for v, tags in tagged.items() if "inference:retired" in {tag["Key"] for tag in tags}}

    try:
        for where in objects.values():
            s3.put_object(**where, Body=b"{}")
        for version in versions:
            ssm.put_parameter(Name=live, Value=version, Type="String", Overwrite=True)
        # retention.releases is 5: each release ran the function, by its event and under its role.
        eventually(lambda: retired() == set(versions[:2]))
        ssm.put_parameter(Name=live, Value=versions[0], Type="String", Overwrite=True)
        eventually(lambda: retired() == set(versions[1:3]))
    finally:
        ssm.delete_parameter(Name=live)
        for where in objects.values():
            s3.delete_object(**where)


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)
