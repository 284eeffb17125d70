"""The trail and its bucket; the account's services, off unless configuration says so, each by its switch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import Validations
from aws_cdk.assertions import Template

from app import ROOT
from catalog.data import Audit, ObjectLock
from catalog.environment import Environment
from catalog.loader import load_environment
from local_aws import filter_patterns
from stacks.account import AccountStack
from stacks.audit import AuditStack
from stacks.constructs.account_alarms import WATCHED
from stacks.keys import KeysStack
from tests.assembly import NAG_PACKS, Assembly

EVERYTHING = Audit(
    data_events=("models", "data", "functions"),
    archive_days=30,
    delete_days=400,
    object_lock=ObjectLock(mode="compliance", days=365),
    guard_duty=True,
    inspector=("ecr", "lambda"),
    config_rules=True,
    access_analyzer=True,
    trusted_advisor=True,
)


SIGN_IN = {
    "eventName": "ConsoleLogin",
    "userIdentity": {"type": "IAMUser"},
    "responseElements": {"ConsoleLogin": "Success"},
}
CHANGE = {"readOnly": False, "sourceIPAddress": "192.0.2.1", "eventName": "Change"}
DEPLOYED = {"readOnly": False, "sourceIPAddress": "cloudformation.amazonaws.com"}


def prod_with(audit: Audit) -> Environment:
    return load_environment(ROOT / "config", "prod").model_copy(update={"audit": audit})


@pytest.fixture
def account() -> Callable[[Audit], Template]:
    return lambda audit: Template.from_stack(AccountStack(cdk.App(), prod_with(audit)))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Templates by stack with everything on, and what cdk-nag says of them."""
    folder = tmp_path_factory.mktemp("everything")
    app = cdk.App(outdir=str(folder), context=json.loads((ROOT / "cdk.json").read_text())["context"])
    Validations.of(app).add_plugins(*(pack(app) for pack in NAG_PACKS.values()))
    environment = prod_with(EVERYTHING)
    for stack in (KeysStack, AuditStack, AccountStack):
        stack(app, environment)
    app.synth()
    report = json.loads((Path(folder) / "validation-report.json").read_text())
    templates = {
        name: json.loads((Path(folder) / f"inference-prod-{name}.template.json").read_text())["Resources"]
        for name in ("keys", "audit", "account")
    }
    return templates | {"violations": [p["violations"] for p in report["pluginReports"]]}


def of_type(resources: dict[str, Any], type_: str) -> list[dict[str, Any]]:
    return [r["Properties"] for r in resources.values() if r["Type"] == type_]


def test_account_services_are_off_unless_configuration_says_so(assembly: Assembly) -> None:
    assert f"inference-{assembly.environment}-account" not in assembly.templates
    assert not list(assembly.resources("Custom::AccountService"))


@pytest.mark.parametrize(
    ("switch", "services"),
    [
        ({"guard_duty": True}, ["GuardDuty"]),
        ({"inspector": ("ecr", "lambda")}, ["Inspector", "Inspector"]),
        ({"config_rules": True}, ["ConfigRecorder"]),
        ({"access_analyzer": True}, ["AccessAnalyzer"]),
        ({"trusted_advisor": True}, []),
    ],
    ids=lambda value: str(value)[:18],
)
def test_each_switch_brings_its_service_and_the_rights_for_it_alone(
    account: Callable[[Audit], Template], switch: dict[str, Any], services: list[str]
) -> None:
    template = account(Audit(**switch))
    made = template.find_resources("Custom::AccountService").values()
    assert [resource["Properties"]["Service"] for resource in made] == services
    assert bool(template.find_resources("AWS::Config::ConfigRule")) == ("config_rules" in switch)
    assert bool(template.find_resources("AWS::Events::Rule")) == ("trusted_advisor" in switch)
    text = json.dumps(template.find_resources("AWS::IAM::Policy"))
    prefixes = {
        "guard_duty": "guardduty:L",
        "inspector": "inspector2:",
        "config_rules": "config:",
        "access_analyzer": "access-analyzer:L",
        "trusted_advisor": "trustedadvisor:",
    }
    assert [name for name, prefix in prefixes.items() if f'"{prefix}' in text] == list(switch)


def test_with_everything_on_cdk_nag_finds_nothing(everything: dict[str, Any]) -> None:
    assert everything["violations"] == [[] for _ in NAG_PACKS]


def test_rules_wait_for_the_recorder_and_look_at_what_it_records(everything: dict[str, Any]) -> None:
    resources = everything["account"]
    [recorder] = [
        name
        for name, r in resources.items()
        if r["Type"] == "Custom::AccountService" and r["Properties"]["Service"] == "ConfigRecorder"
    ]
    rules = [r for r in resources.values() if r["Type"] == "AWS::Config::ConfigRule"]
    assert rules
    for rule in rules:
        assert recorder in rule["DependsOn"]
        assert rule["Properties"]["ConfigRuleName"].startswith("inference-prod-")
    own = [r["Properties"]["Scope"] for r in rules if "Scope" in r["Properties"]]
    assert own == [{"TagKey": "inference:environment", "TagValue": "prod"}] * 4


def test_config_may_deliver_and_encrypt_only_where_its_rules_are_wanted(
    everything: dict[str, Any], prod: Assembly
) -> None:
    for wanted, audit, keys in (
        (True, everything["audit"], everything["keys"]),
        (
            False,
            prod.templates["inference-prod-audit"]["Resources"],
            prod.templates["inference-prod-keys"]["Resources"],
        ),
    ):
        policies = [each for each in audit.values() if each["Type"] == "AWS::S3::BucketPolicy"]
        assert ("config.amazonaws.com" in json.dumps(policies)) == wanted
        assert ("config.amazonaws.com" in json.dumps(keys)) == wanted


def test_records_are_locked_from_their_delivery_and_end_after_the_lock(everything: dict[str, Any]) -> None:
    [bucket] = of_type(everything["audit"], "AWS::S3::Bucket")
    assert bucket["ObjectLockEnabled"] is True
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention == {"Mode": "COMPLIANCE", "Days": 365}
    [archive] = [r for r in bucket["LifecycleConfiguration"]["Rules"] if r["Id"] == "archive"]
    assert archive["ExpirationInDays"] == 400
    assert archive["Transitions"] == [{"StorageClass": "GLACIER_IR", "TransitionInDays": 30}]


def test_the_trail_covers_every_region_is_validated_and_records_what_is_asked_for(
    everything: dict[str, Any], prod: Assembly
) -> None:
    for resources, kinds in (
        (everything["audit"], ["AWS::S3::Object", "AWS::Lambda::Function"]),
        (prod.templates["inference-prod-audit"]["Resources"], ["AWS::S3::Object"]),
    ):
        [trail] = of_type(resources, "AWS::CloudTrail::Trail")
        assert trail["IsMultiRegionTrail"] is trail["EnableLogFileValidation"] is True
        assert trail["KMSKeyId"]
        management, *data = trail["AdvancedEventSelectors"]
        assert management["FieldSelectors"] == [{"Field": "eventCategory", "Equals": ["Management"]}]
        fields = [{f["Field"]: f for f in selector["FieldSelectors"]} for selector in data]
        assert [f["resources.type"]["Equals"][0] for f in fields] == kinds
        objects = json.dumps(fields[0]["resources.ARN"]["StartsWith"])
        assert "inference-prod-models-" in objects
        assert "inference-prod-data-" in objects


def test_the_trail_counts_what_somebody_should_hear_of(prod: Assembly) -> None:
    resources = prod.templates["inference-prod-audit"]["Resources"].values()
    filters = [each["Properties"] for each in resources if each["Type"] == "AWS::Logs::MetricFilter"]
    alarms = [each["Properties"] for each in resources if each["Type"] == "AWS::CloudWatch::Alarm"]
    counted = {each["MetricTransformations"][0]["MetricName"] for each in filters}
    assert counted == {alarm["MetricName"] for alarm in alarms}
    assert len(filters) == len(alarms) == len(WATCHED)
    for each in filters:
        assert len(each["FilterPattern"]) <= 1024  # PutMetricFilter


@pytest.mark.parametrize(
    ("name", "event", "rings"),
    [
        ("root-use", {"userIdentity": {"type": "Root"}, "eventType": "AwsApiCall"}, True),
        ("root-use", {"userIdentity": {"type": "Root", "invokedBy": "x"}, "eventType": "AwsApiCall"}, False),
        ("root-use", {"userIdentity": {"type": "AssumedRole"}, "eventType": "AwsApiCall"}, False),
        ("refused-calls", {"errorCode": "AccessDenied"}, True),
        ("refused-calls", {"errorCode": "Client.UnauthorizedOperation"}, True),
        ("refused-calls", {"errorCode": "ThrottlingException"}, False),
        ("sign-in-without-mfa", SIGN_IN | {"additionalEventData": {"MFAUsed": "No"}}, True),
        ("sign-in-without-mfa", SIGN_IN | {"additionalEventData": {"MFAUsed": "Yes"}}, False),
        ("failed-sign-ins", SIGN_IN | {"errorMessage": "Failed authentication"}, True),
        ("failed-sign-ins", SIGN_IN, False),
        ("key-deletion", CHANGE | {"eventSource": "kms.amazonaws.com", "eventName": "DisableKey"}, True),
        ("key-deletion", CHANGE | {"eventSource": "kms.amazonaws.com", "eventName": "EnableKey"}, False),
        (
            "trail-changes",
            CHANGE | {"eventSource": "cloudtrail.amazonaws.com", "eventName": "StopLogging"},
            True,
        ),
        ("iam-changes", CHANGE | {"eventSource": "iam.amazonaws.com", "eventName": "AttachRolePolicy"}, True),
        ("iam-changes", DEPLOYED | {"eventSource": "iam.amazonaws.com", "eventName": "PutRolePolicy"}, False),
        ("iam-changes", CHANGE | {"eventSource": "iam.amazonaws.com", "readOnly": True}, False),
        (
            "bucket-changes",
            CHANGE | {"eventSource": "s3.amazonaws.com", "eventName": "PutBucketPolicy"},
            True,
        ),
        (
            "bucket-changes",
            DEPLOYED | {"eventSource": "s3.amazonaws.com", "eventName": "PutBucketPolicy"},
            False,
        ),
        ("network-changes", CHANGE | {"eventSource": "ec2.amazonaws.com", "eventName": "CreateRoute"}, True),
        (
            "network-changes",
            CHANGE | {"eventSource": "ec2.amazonaws.com", "eventName": "RunInstances"},
            False,
        ),
        (
            "recorder-changes",
            CHANGE | {"eventSource": "config.amazonaws.com", "eventName": "StopConfigurationRecorder"},
            True,
        ),
    ],
)
def test_each_pattern_finds_its_events_and_leaves_deployments_alone(
    name: str, event: dict[str, Any], rings: bool
) -> None:
    assert filter_patterns.matcher(WATCHED[name].pattern)(json.dumps(event)) == rings
