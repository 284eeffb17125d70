"""A second environment in the account, with what `local` leaves off: private, locked, watched, for people."""

import base64
import hashlib
import json
import secrets
import time
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.exceptions
import httpx
import pytest

import local_aws
from app import ROOT
from catalog.environment import Environment
from catalog.loader import load_platform
from tests.integration.local_aws.embedded import until
from tests.integration.platform.changes.deploying import deploy
from tests.integration.platform.conftest import Platform

pytestmark = pytest.mark.changes

NAME = "vault"
MODEL = "file-type"
CALLBACK = "https://console.example.com/login"
OPTIONS: dict[str, Any] = {
    "network": {"cidr": "10.40.0.0/16", "private_control_plane": True},
    # One per account and region, and `local` has it.
    "api": {"throttle_rate": 100, "throttle_burst": 100, "log_role": False},
    "login": {"scopes": ["admin"], "callback_urls": [CALLBACK]},
    "retention": {"logs_days": 1, "keep_data": True},
    "audit": {
        "data_events": ["models", "data", "functions"],
        "object_lock": {"mode": "compliance", "days": 400},
        # Those that the embedded AWS has.
        "inspector": ["ecr", "lambda"],
        "config_rules": True,
    },
}


@pytest.fixture(scope="module")
def vault(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The environment, deployed beside `local` with one CPU model."""
    folder = tmp_path_factory.mktemp(NAME)
    found = load_platform(ROOT, "local")
    document = found.environment.model_dump(mode="json", exclude_unset=True) | OPTIONS
    document["probe"]["models"] = [MODEL]
    # Only `local` may run functions on this machine's Python, so the name comes last.
    environment = Environment.model_validate(document).model_copy(update={"name": NAME})
    deploy(
        platform, environment, [model for model in found.models if model.name == MODEL], folder / "assembly"
    )
    state = local_aws.status(home=platform.home)
    assert state is not None

    def parameter(name: str) -> str:
        found: str = platform.aws("ssm").get_parameter(Name=f"/inference/{NAME}/{name}")["Parameter"]["Value"]
        return found

    host, token = urlsplit(parameter("api/url")).netloc, urlsplit(parameter("identity/token-url"))
    deployed = replace(
        platform.deployed,
        environment=environment,
        api_url=f"{state.endpoint}/_aws/execute-api/{host.partition('.')[0]}/{NAME}",
        token_url=f"{state.endpoint}{token.path}",
        token_headers={"Host": token.netloc},
        user_pool_id=parameter("identity/user-pool-id"),
    )
    return replace(platform, deployed=deployed, deployed_at=time.time(), _tokens={})


def functions(vault: Platform) -> dict[str, dict[str, Any]]:
    """The environment's functions by name."""
    pages = vault.aws("lambda").get_paginator("list_functions").paginate()
    return {
        function["FunctionName"]: function
        for page in pages
        for function in page["Functions"]
        if function["FunctionName"].startswith(f"inference-{NAME}")
    }


def refused(vault: Platform) -> list[str]:
    """What IAM, or an endpoint of the VPC, refused to the environment's roles since they are deployed."""
    pages = vault.aws("cloudtrail").get_paginator("lookup_events").paginate(StartTime=vault.deployed_at)
    events = [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]
    return [
        event["errorMessage"]
        for event in events
        if "errorCode" in event and f"inference-{NAME}" in event["userIdentity"].get("arn", "")
    ]


def test_control_functions_work_inside_the_vpc(vault: Platform) -> None:
    body = (ROOT / "models" / MODEL / "sample.json").read_bytes()
    assert vault.infer(MODEL, body).status_code == 200
    for path in ("/v2/models", "/v2/health/ready", f"/v2/models/{MODEL}/ready"):
        assert vault.call("GET", path).status_code == 200, path

    outside = {
        name
        for name, function in functions(vault).items()
        if not function.get("VpcConfig", {}).get("SubnetIds")
    }
    # The probe and releases ask models as clients do, and what switches account services on calls APIs that
    # have no endpoint here.
    assert {name.split("-")[2] for name in outside} == {"health", "releases", "account"}
    events, started = vault.aws("events"), set()
    for rule in events.list_rules()["Rules"]:
        if "ScheduleExpression" not in rule:
            continue
        for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
            name = target["Arn"].rpartition(":")[2]
            if name in functions(vault):
                answer = vault.aws("lambda").invoke(
                    FunctionName=target["Arn"], Payload=target.get("Input", "{}")
                )
                assert "FunctionError" not in answer, answer["Payload"].read()
                started.add(name.split("-")[2])
    assert started == {"health", "retirement", "drift"}
    assert refused(vault) == []


def test_account_services_are_switched_on_by_who_came_first(vault: Platform) -> None:
    recorder = vault.aws("config").describe_configuration_recorder_status()["ConfigurationRecordersStatus"]
    assert [each["recording"] for each in recorder] == [True]
    rules = vault.aws("config").describe_config_rules()["ConfigRules"]
    assert {rule["ConfigRuleName"].startswith(f"inference-{NAME}-") for rule in rules} == {True}
    scans = vault.aws("inspector2").batch_get_account_status(accountIds=["000000000000"])["accounts"][0]
    assert {scans["resourceState"][scan]["status"] for scan in ("ecr", "lambda")} == {"ENABLED"}
    resources = vault.aws("cloudformation").describe_stack_resources(StackName=f"inference-{NAME}-account")
    made = [each for each in resources["StackResources"] if each["ResourceType"] == "Custom::AccountService"]
    assert {each["PhysicalResourceId"].partition(":")[0] for each in made} == {"made"}


def test_audit_records_are_locked_once_they_are_delivered(vault: Platform) -> None:
    s3, bucket = vault.aws("s3"), f"inference-{NAME}-audit-000000000000-us-east-1"
    prefix = "AWSLogs/000000000000/CloudTrail/"
    listed = until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"))
    record = s3.head_object(Bucket=bucket, Key=listed[0]["Key"])
    assert record["ObjectLockMode"] == "COMPLIANCE"
    assert record["ObjectLockRetainUntilDate"].timestamp() > time.time() + 399 * 86_400
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key=listed[0]["Key"], VersionId=record["VersionId"])


def test_a_key_about_to_be_deleted_rings(vault: Platform) -> None:
    cloudwatch, kms = vault.aws("cloudwatch"), vault.aws("kms")
    name = f"inference-{NAME}-key-deletion"

    def state() -> str:
        found: str = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]
        return found

    assert state() != "ALARM"
    kms.schedule_key_deletion(KeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    until(lambda: state() == "ALARM")


def test_a_person_logs_in_with_a_browser_and_may_do_what_the_configuration_says(vault: Platform) -> None:
    cognito, deployed = vault.aws("cognito-idp"), vault.deployed
    pool, password = deployed.user_pool_id, f"Aa1-{secrets.token_urlsafe(24)}"
    app = vault.aws("ssm").get_parameter(Name=f"/inference/{NAME}/identity/login/id")["Parameter"]["Value"]
    cognito.admin_create_user(
        UserPoolId=pool,
        Username="ada@example.com",
        MessageAction="SUPPRESS",
        TemporaryPassword=f"{password}1",
    )
    cognito.admin_set_user_password(
        UserPoolId=pool, Username="ada@example.com", Password=password, Permanent=True
    )
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {
        "client_id": app,
        "redirect_uri": CALLBACK,
        "response_type": "code",
        "scope": "openid inference/admin",
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    login = deployed.token_url.removesuffix("/oauth2/token")
    page = vault.http.get(f"{login}/oauth2/authorize", params=asked, headers=deployed.token_headers)
    assert page.status_code == 200, page.text
    assert 'name="password"' in page.text
    submitted = vault.http.post(
        f"{login}/login",
        data=asked | {"username": "ada@example.com", "password": password},
        headers=deployed.token_headers,
    )
    back = urlsplit(submitted.headers["location"])
    assert back._replace(query="").geturl() == CALLBACK
    redeemed = {"grant_type": "authorization_code", "client_id": app, "redirect_uri": CALLBACK}
    redeemed["code"] = parse_qs(back.query)["code"][0]

    def redeem(verifier: str) -> httpx.Response:
        return vault.http.post(
            deployed.token_url, data=redeemed | {"code_verifier": verifier}, headers=deployed.token_headers
        )

    answer = redeem(verifier)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    assert vault.call("GET", "/v2/models", token=token).status_code == 200
    body = (ROOT / "models" / MODEL / "sample.json").read_bytes()
    assert vault.infer(MODEL, body, token=token).status_code == 401
    assert redeem(verifier).status_code == 400, "a code counts once"
