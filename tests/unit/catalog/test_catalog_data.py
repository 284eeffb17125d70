"""Retention and audit settings that contradict each other, or AWS, are told so at their field."""

# ruff: noqa: E501  a case and what it is told stand on one line

from pathlib import Path

import pytest

from catalog import CatalogError, Environment, load_environment
from tests.unit.catalog.test_catalog_files import ENVIRONMENT


def load(folder: Path, text: str) -> Environment:
    (folder / "dev.yaml").write_text(ENVIRONMENT + text)
    return load_environment(folder, "dev")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("retention: {payloads: {infrequent_access_days: 29}}", "retention.payloads.infrequent_access_days: 29 is not allowed: must be >= 30"),
        ("retention: {payloads: {infrequent_access_days: 61}}", "retention.payloads.archive_days: 90 is not allowed: must be >= 91: S3 keeps objects for 30 days in infrequent access before it moves them on"),
        ("retention: {payloads: {delete_days: 90}}", "retention.payloads.delete_days: 90 is not allowed: must be > 90, archive_days: what is deleted first is never archived"),
        ("retention: {releases: 1}", "retention.releases: 1 is not allowed: must be >= 2"),
        ("retention: {retired_days: 6}", "retention.retired_days: 6 is not allowed: must be >= 7"),
        ("audit: {data_events: [models, models]}", "audit.data_events[1]: 'models' is not allowed: is listed twice"),
        ("audit: {inspector: [ec2]}", "audit.inspector[0]: 'ec2' is not allowed: must be one of 'ecr' or 'lambda'"),
        ("audit: {trail: false, object_lock: {mode: governance, days: 1}}", "audit.object_lock: {'mode': 'governance', 'days': 1} is not allowed: locks the trail's records: needs trail: true"),
        ("audit: {trail: false, config_rules: true}", "audit.config_rules: true is not allowed: delivers to the audit bucket: needs trail: true"),
        ("audit: {delete_days: 90}", "audit.delete_days: 90 is not allowed: must be > 90, archive_days"),
        ("audit: {delete_days: 100, object_lock: {mode: governance, days: 365}}", "audit.delete_days: 100 is not allowed: must be >= 365: until then object_lock keeps the records"),
        ("audit: {object_lock: {mode: legal, days: 1}}", "audit.object_lock.mode: 'legal' is not allowed: must be one of 'governance' or 'compliance'"),
        ("retention: {keep_data: false}\naudit: {object_lock: {mode: governance, days: 1}}", "audit.object_lock: {'mode': 'governance', 'days': 1} is not allowed: keeps its bucket from being deleted with its stack: needs retention.keep_data: true"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_field_and_the_remedy(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, text)
    [line] = str(caught.value).splitlines()
    assert line.split(": ", 1)[1] == problem


def test_account_level_services_and_locks_are_off_unless_configuration_says_so(tmp_path: Path) -> None:
    audit = load(tmp_path, "").audit
    switches = ("guard_duty", "config_rules", "access_analyzer", "trusted_advisor", "object_lock")
    assert not [name for name in switches if getattr(audit, name)]
    assert audit.inspector == ()
    assert audit.data_events == ("models", "data")


def test_records_may_be_deleted_once_their_lock_ends(tmp_path: Path) -> None:
    audit = load(tmp_path, "audit: {delete_days: 365, object_lock: {mode: compliance, days: 365}}").audit
    assert audit.object_lock
    assert audit.object_lock.days == audit.delete_days
