"""Account-level services: made where they are off, left alone where they are on, removed if made here."""

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import custom_resource
import pytest

from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws

ACCOUNT_SERVICE = imported("account_service")

ACCOUNT = "123456789012"
ECR, LAMBDA = ({"Scan": scan, "Account": ACCOUNT} for scan in ("ECR", "LAMBDA"))
RECORDER = {
    "Bucket": "audit",
    "KeyArn": "arn:aws:kms:us-east-1:123456789012:key/1",
    "RoleArn": "arn:aws:iam::123456789012:role/aws-service-role/config.amazonaws.com/AWSServiceRoleForConfig",
    "ResourceTypes": "AWS::S3::Bucket,AWS::KMS::Key",
}


class Analyzers:
    """IAM Access Analyzer, which moto lacks: an account and region have one analyzer of type ACCOUNT."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def list_analyzers(self, *, type: str) -> dict[str, Any]:
        assert type == "ACCOUNT"
        return {"analyzers": [{"name": name} for name in self.names]}

    def create_analyzer(self, *, analyzerName: str, type: str) -> dict[str, Any]:
        assert not self.names, "ServiceQuotaExceededException"
        self.names.append(analyzerName)
        return {"arn": analyzerName}

    def delete_analyzer(self, *, analyzerName: str) -> None:
        self.names.remove(analyzerName)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mocked_aws(monkeypatch):
        boto3.client("s3").create_bucket(Bucket="audit")
        analyzers, client = Analyzers(), boto3.client
        monkeypatch.setattr(
            ACCOUNT_SERVICE.boto3,
            "client",
            lambda service, **options: (
                analyzers if service == "accessanalyzer" else client(service, **options)
            ),
        )
        yield


def event(kind: str, service: str, physical_id: str | None = None, **options: str) -> dict[str, Any]:
    request: dict[str, Any] = {
        "RequestType": kind,
        "ResponseURL": "https://cloudformation.test/answer",
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Service",
        "ResourceProperties": {"ServiceToken": "arn", "Service": service, "Options": options},
    }
    return request if physical_id is None else request | {"PhysicalResourceId": physical_id}


CASES = [
    ("GuardDuty", {}),
    ("Inspector", ECR),
    ("Inspector", LAMBDA),
    ("ConfigRecorder", RECORDER),
    ("AccessAnalyzer", {"Name": "inference-test"}),
]
services = pytest.mark.parametrize(("service", "options"), CASES, ids=lambda case: str(case)[:20])


def there(service: str, options: dict[str, str]) -> str | None:
    found: str | None = ACCOUNT_SERVICE.SERVICES[service](options).find()
    return found


@services
def test_what_is_off_is_switched_on_and_goes_with_the_stack(service: str, options: dict[str, str]) -> None:
    made = ACCOUNT_SERVICE.tend(event("Create", service, **options))
    assert made == f"made:{there(service, options)}"
    assert ACCOUNT_SERVICE.tend(event("Update", service, made, **options)) == made
    ACCOUNT_SERVICE.tend(event("Delete", service, made, **options))
    assert there(service, options) is None


@services
def test_what_is_on_already_is_neither_changed_nor_removed(service: str, options: dict[str, str]) -> None:
    before = ACCOUNT_SERVICE.tend(event("Create", service, **options))
    found = ACCOUNT_SERVICE.tend(event("Create", service, **options))
    assert found == before.replace("made:", "found:")
    assert ACCOUNT_SERVICE.tend(event("Update", service, found, **options)) == found
    ACCOUNT_SERVICE.tend(event("Delete", service, found, **options))
    assert there(service, options) == found.removeprefix("found:")


@services
def test_what_somebody_switched_off_meanwhile_is_switched_on_by_the_next_update(
    service: str, options: dict[str, str]
) -> None:
    made = ACCOUNT_SERVICE.tend(event("Create", service, **options))
    ACCOUNT_SERVICE.SERVICES[service](options).remove()
    ACCOUNT_SERVICE.tend(event("Delete", service, made, **options))  # nothing there: nothing to do
    again = ACCOUNT_SERVICE.tend(event("Update", service, f"found:{made}", **options))
    assert again == f"made:{there(service, options)}"


def test_one_scan_of_inspector_leaves_the_other_alone() -> None:
    ecr = ACCOUNT_SERVICE.tend(event("Create", "Inspector", **ECR))
    ACCOUNT_SERVICE.tend(event("Create", "Inspector", **LAMBDA))
    ACCOUNT_SERVICE.tend(event("Delete", "Inspector", ecr, **ECR))
    assert there("Inspector", ECR) is None
    assert there("Inspector", LAMBDA) == "LAMBDA"


def test_a_recorder_that_cannot_deliver_is_not_left_half_made(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RECORDER | {"Bucket": ""}
    with pytest.raises(Exception, match="bucket"):
        ACCOUNT_SERVICE.tend(event("Create", "ConfigRecorder", **options))
    assert there("ConfigRecorder", options) is None


def test_cloudformation_hears_of_success_and_of_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, str]] = []

    def urlopen(request: Any, **options: Any) -> io.BytesIO:
        answers.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(custom_resource, "urlopen", urlopen)
    ACCOUNT_SERVICE.handler(event("Create", "GuardDuty"), None)
    ACCOUNT_SERVICE.handler(event("Create", "Inspector"), None)
    # CloudFormation deletes what it failed to create, by the logical id: that removes nothing.
    ACCOUNT_SERVICE.handler(event("Delete", "GuardDuty", "Service"), None)
    assert [answer["Status"] for answer in answers] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert answers[1]["Reason"] == "KeyError: 'Scan'"
    assert there("GuardDuty", {})
