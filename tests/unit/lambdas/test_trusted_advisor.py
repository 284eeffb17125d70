"""Trusted Advisor's findings become metrics that end in zero, and a log line each."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.lambdas.function import imported

FINDINGS = {
    "warning": [{"name": "Idle endpoints", "status": "warning", "pillars": ["cost_optimizing"], "arn": "a"}],
    "error": [
        {
            "name": "Open ports",
            "status": "error",
            "pillars": ["security", "fault_tolerance"],
            "arn": "b",
            "resourcesAggregates": {"errorCount": 2, "okCount": 1},
        }
    ],
}


class Advisor:
    """The service's API, as far as it is called; a page per status."""

    findings: dict[str, list[dict[str, Any]]] = FINDINGS

    def get_paginator(self, operation: str) -> "Advisor":
        assert operation == "list_recommendations"
        return self

    def paginate(self, *, status: str) -> Iterator[dict[str, Any]]:
        yield {"recommendationSummaries": self.findings[status]}


def measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], advisor: Advisor
) -> list[dict[str, Any]]:
    function = imported("trusted_advisor")
    monkeypatch.setenv("METRICS_NAMESPACE", "Inference/test")
    monkeypatch.setattr(function.boto3, "client", lambda service, region_name: advisor)
    function.handler({}, None)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_findings_are_counted_by_status_and_by_pillar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = measured(monkeypatch, capsys, Advisor())
    counts = {(m["Status"], m.get("Pillar")): m["TrustedAdvisorFindings"] for m in found}
    assert counts == {
        ("warning", None): 1,
        ("error", None): 1,
        ("warning", "cost_optimizing"): 1,
        ("error", "security"): 1,
        ("error", "fault_tolerance"): 1,
    }
    for metric in found:
        [definition] = metric["_aws"]["CloudWatchMetrics"]
        assert definition["Namespace"] == "Inference/test"
        assert all(name in metric for name in definition["Dimensions"][0])
    lines = [json.loads(record.message) for record in caplog.records if record.message.startswith("{")]
    assert [line["finding"] for line in lines] == ["Idle endpoints", "Open ports"]
    assert lines[1]["resources"] == {"errorCount": 2}


def test_no_finding_is_a_zero_not_a_gap(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advisor = Advisor()
    advisor.findings = {"warning": [], "error": []}
    counts = {m["Status"]: m["TrustedAdvisorFindings"] for m in measured(monkeypatch, capsys, advisor)}
    assert counts == {"warning": 0, "error": 0}
