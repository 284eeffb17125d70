"""CloudFormation custom resource: one of the account's security services, on where it was off.

An account and region have one GuardDuty detector, one configuration recorder and so on. CloudFormation's own
resource types fail where there is one already. This one looks first: what is there stays as it is, what is
not is made, and only what this resource made goes with it. The physical id remembers which: `made:<id>` or
`found:<id>`.

ResourceProperties:
    Service     one of SERVICES
    Options     what its class documents; all text
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import boto3
from custom_resource import respond

MADE, FOUND = "made:", "found:"

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class Service(Protocol):
    """A service that is on or off in an account and region."""

    def __init__(self, options: Mapping[str, str]) -> None: ...

    def find(self) -> str | None:
        """The id of what is there; None where the service is off."""

    def make(self) -> str:
        """Switch it on; its id."""

    def remove(self) -> None:
        """Switch off what `find` found."""


def handler(event: dict[str, Any], context: Any) -> None:
    respond(event, tend)


def tend(event: dict[str, Any]) -> str:
    """Do what CloudFormation asks; the physical id."""
    properties = event["ResourceProperties"]
    service = SERVICES[properties["Service"]](properties.get("Options", {}))
    before = str(event.get("PhysicalResourceId", ""))
    found = service.find()
    if event["RequestType"] == "Delete":
        if found and before == MADE + found:
            service.remove()
            logger.info("%s: removed %s, which this stack had made", properties["Service"], found)
        return before
    if found is None:
        found = service.make()
        logger.info("%s: made %s", properties["Service"], found)
        return MADE + found
    return before if before == MADE + found else FOUND + found


class GuardDuty:
    """Threat detection. No options."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.client = boto3.client("guardduty")

    def find(self) -> str | None:
        return next(iter(self.client.list_detectors()["DetectorIds"]), None)

    def make(self) -> str:
        return str(self.client.create_detector(Enable=True)["DetectorId"])

    def remove(self) -> None:
        self.client.delete_detector(DetectorId=self.find())


class Inspector:
    """Vulnerability scans of one kind. Options: `Scan`, ECR or LAMBDA; `Account`, the account's id."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.client = boto3.client("inspector2")
        self.scan = options["Scan"]
        self.accounts = [options["Account"]]

    def find(self) -> str | None:
        accounts = self.client.batch_get_account_status(accountIds=self.accounts)["accounts"]
        states = [account["resourceState"][self.scan.lower()]["status"] for account in accounts]
        return self.scan if {"ENABLED", "ENABLING"} & set(states) else None

    def make(self) -> str:
        answer = self.client.enable(accountIds=self.accounts, resourceTypes=[self.scan])
        if failed := answer.get("failedAccounts"):
            raise RuntimeError(failed[0]["errorMessage"])
        return self.scan

    def remove(self) -> None:
        self.client.disable(accountIds=self.accounts, resourceTypes=[self.scan])


class ConfigRecorder:
    """What AWS Config knows of resources. Options: `Bucket` and `KeyArn` for its records, `RoleArn` to look
    with, `ResourceTypes` to look at, separated by commas.

    Where there is a recorder, it and its delivery channel stay as they are.
    """

    NAME = "default"

    def __init__(self, options: Mapping[str, str]) -> None:
        self.client = boto3.client("config")
        self.options = options

    def find(self) -> str | None:
        recorders = self.client.describe_configuration_recorders()["ConfigurationRecorders"]
        return next((recorder["name"] for recorder in recorders), None)

    def make(self) -> str:
        self._make_role()
        self.client.put_configuration_recorder(
            ConfigurationRecorder={
                "name": self.NAME,
                "roleARN": self.options["RoleArn"],
                "recordingGroup": {
                    "allSupported": False,
                    "includeGlobalResourceTypes": False,
                    "resourceTypes": self.options["ResourceTypes"].split(","),
                },
            }
        )
        try:
            if not self.client.describe_delivery_channels()["DeliveryChannels"]:
                self.client.put_delivery_channel(
                    DeliveryChannel={
                        "name": self.NAME,
                        "s3BucketName": self.options["Bucket"],
                        "s3KmsKeyArn": self.options["KeyArn"],
                    }
                )
            self.client.start_configuration_recorder(ConfigurationRecorderName=self.NAME)
        except Exception:
            # Half a recorder would be found by the next attempt, and left as it is.
            self.remove()
            raise
        return self.NAME

    def remove(self) -> None:
        self.client.stop_configuration_recorder(ConfigurationRecorderName=self.NAME)
        for channel in self.client.describe_delivery_channels()["DeliveryChannels"]:
            if channel["s3BucketName"] == self.options["Bucket"]:
                self.client.delete_delivery_channel(DeliveryChannelName=channel["name"])
        self.client.delete_configuration_recorder(ConfigurationRecorderName=self.NAME)

    @staticmethod
    def _make_role() -> None:
        iam = boto3.client("iam")
        try:
            iam.create_service_linked_role(AWSServiceName="config.amazonaws.com")
        except (iam.exceptions.InvalidInputException, iam.exceptions.EntityAlreadyExistsException):
            logger.info("AWS Config has its role already")


class AccessAnalyzer:
    """Findings on what is shared outside the account. Options: `Name` of the analyzer."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.client = boto3.client("accessanalyzer")
        self.name = options["Name"]

    def find(self) -> str | None:
        analyzers = self.client.list_analyzers(type="ACCOUNT")["analyzers"]
        return next((analyzer["name"] for analyzer in analyzers), None)

    def make(self) -> str:
        self.client.create_analyzer(analyzerName=self.name, type="ACCOUNT")
        return self.name

    def remove(self) -> None:
        self.client.delete_analyzer(analyzerName=self.name)


SERVICES: dict[str, type[Service]] = {
    "GuardDuty": GuardDuty,
    "Inspector": Inspector,
    "ConfigRecorder": ConfigRecorder,
    "AccessAnalyzer": AccessAnalyzer,
}
