"""What an account has once, and `audit:` may switch on: a deployment leaves what it finds as it is."""

from collections.abc import Iterator

from inferctl.doctor.preflight import OK, WARNING, Finding, Preflight

TRUSTED_ADVISOR_REGION = "us-east-1"
"""Trusted Advisor looks at the whole account; its API is in a few regions only."""


def guard_duty(preflight: Preflight) -> Iterator[Finding]:
    if preflight.environment.audit.guard_duty:
        yield _found("GuardDuty", preflight.client("guardduty").list_detectors()["DetectorIds"])


def inspector(preflight: Preflight) -> Iterator[Finding]:
    """Scans that are on already, of those that are asked for."""
    if wanted := preflight.environment.audit.inspector:
        answer = preflight.client("inspector2").batch_get_account_status()
        states = answer["accounts"][0]["resourceState"]
        yield _found(
            "Inspector", [scan for scan in wanted if states[scan]["status"] in ("ENABLED", "ENABLING")]
        )


def config_recorder(preflight: Preflight) -> Iterator[Finding]:
    """A recorder that stands still, or is there already and records other things than the rules look at."""
    if not preflight.environment.audit.config_rules:
        return
    config = preflight.client("config")
    recorders = config.describe_configuration_recorders()["ConfigurationRecorders"]
    statuses = config.describe_configuration_recorder_status()["ConfigurationRecordersStatus"]
    if recorders and not any(status["recording"] for status in statuses):
        name = recorders[0]["name"]
        yield Finding(
            "AWS Config",
            WARNING,
            f"the recorder {name} is there and stands still: rules would see no change",
            f"aws configservice start-configuration-recorder --configuration-recorder-name {name}",
        )
    else:
        yield _found("AWS Config", [recorder["name"] for recorder in recorders])


def access_analyzer(preflight: Preflight) -> Iterator[Finding]:
    if preflight.environment.audit.access_analyzer:
        analyzers = preflight.client("accessanalyzer").list_analyzers(type="ACCOUNT")["analyzers"]
        yield _found("Access Analyzer", [analyzer["name"] for analyzer in analyzers])


def trusted_advisor(preflight: Preflight) -> Iterator[Finding]:
    """Whether the account's support plan has the API; without one AWS refuses the call."""
    if preflight.environment.audit.trusted_advisor:
        preflight.client("trustedadvisor", TRUSTED_ADVISOR_REGION).list_recommendations(maxResults=1)
        yield Finding("Trusted Advisor", OK, "the support plan has its API")


def _found(check: str, found: list[str]) -> Finding:
    there = f"{', '.join(found)} is there already, and stays as it is"
    return Finding(check, OK, there if found else "made by the deployment")
