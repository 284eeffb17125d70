"""The web ACL: what it refuses, that no inference is refused for its body, that its logs hold no token."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from catalog.environment import Environment
from tests.assembly import Assembly

MANAGED = {
    # Rule group -> capacity units, from AWS WAF's developer guide, "AWS Managed Rules rule groups list".
    "AWSManagedRulesAmazonIpReputationList": 25,
    "AWSManagedRulesCommonRuleSet": 700,
    "AWSManagedRulesKnownBadInputsRuleSet": 200,
}

INSPECT_BODIES = {
    # All rules of these groups that the same guide says inspect the request body.
    "AWSManagedRulesCommonRuleSet": {
        "SizeRestrictions_BODY",
        "EC2MetaDataSSRF_BODY",
        "GenericLFI_BODY",
        "GenericRFI_BODY",
        "CrossSiteScripting_BODY",
    },
    "AWSManagedRulesKnownBadInputsRuleSet": {
        "JavaDeserializationRCE_BODY",
        "Log4JRCE_BODY",
        "ReactJSRCE_BODY",
    },
}


def web_acl(assembly: Assembly) -> dict[str, Any]:
    return assembly.one("AWS::WAFv2::WebACL").properties


def rules(assembly: Assembly) -> dict[str, dict[str, Any]]:
    return {rule["Name"]: rule for rule in web_acl(assembly)["Rules"]}


def statements(statement: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of a rule: kind and content, the outer ones first."""
    for kind, content in statement.items():
        yield kind, content
        inner = content.get("Statements", []) + [
            content[k] for k in ("Statement", "ScopeDownStatement") if k in content
        ]
        for one in inner:
            yield from statements(one)


def test_known_attackers_and_attacks_are_blocked_as_aws_decides(assembly: Assembly) -> None:
    groups = {name: rule for name, rule in rules(assembly).items() if name in MANAGED}
    assert groups.keys() == MANAGED.keys()
    for rule in groups.values():
        assert rule["OverrideAction"] == {"None": {}}
        assert "ScopeDownStatement" not in rule["Statement"]["ManagedRuleGroupStatement"]


def test_rules_about_bodies_count_and_nothing_else_is_overridden(assembly: Assembly) -> None:
    for name, rule in rules(assembly).items():
        managed = rule["Statement"].get("ManagedRuleGroupStatement")
        if managed:
            overrides = managed.get("RuleActionOverrides", [])
            assert {o["Name"] for o in overrides} == INSPECT_BODIES.get(name, set())
            assert all(o["ActionToUse"] == {"Count": {}} for o in overrides)


def test_no_rule_of_ours_looks_at_a_body(assembly: Assembly) -> None:
    for rule in rules(assembly).values():
        for _, content in statements(rule["Statement"]):
            assert not content.get("FieldToMatch", {}).keys() & {"Body", "JsonBody"}


def test_what_the_rules_about_bodies_counted_is_blocked_outside_inference_only(assembly: Assembly) -> None:
    rule = rules(assembly)["bodies-outside-inference"]
    assert rule["Action"] == {"Block": {}}
    labels, exception = rule["Statement"]["AndStatement"]["Statements"]
    named = {s["LabelMatchStatement"]["Key"].rpartition(":")[2] for s in labels["OrStatement"]["Statements"]}
    assert {name.replace("_Body", "_BODY") for name in named} == set().union(*INSPECT_BODIES.values())
    # Labels exist only after the group that puts them there.
    before = {name for name, other in rules(assembly).items() if other["Priority"] < rule["Priority"]}
    assert before >= INSPECT_BODIES.keys()
    match = exception["NotStatement"]["Statement"]["RegexMatchStatement"]
    assert match["FieldToMatch"] == {"UriPath": {}}
    paths = [path for path, methods in operations(assembly).items() if "post" in methods]
    assert paths
    for path in paths:
        # With the stage before it, as at the default address, and without, as under a domain of one's own.
        assert re.search(match["RegexString"], f"/{assembly.environment}{path}")
        assert re.search(match["RegexString"], path)
    for path in set(operations(assembly)) - set(paths) | {"/v2/models/x/infer/../..", "/oauth2/token"}:
        assert not re.search(match["RegexString"], path)


def operations(assembly: Assembly) -> dict[str, dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = assembly.one("AWS::ApiGateway::RestApi").properties["Body"]["paths"]
    return paths


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("requests-per-ip", {"AggregateKeyType": "IP"}),
        (
            "requests-per-token",
            {
                "AggregateKeyType": "CUSTOM_KEYS",
                "CustomKeys": [
                    {
                        "Header": {
                            "Name": "authorization",
                            "TextTransformations": [{"Priority": 0, "Type": "NONE"}],
                        }
                    }
                ],
            },
        ),
    ],
)
def test_floods_are_answered_429_by_source_and_by_token(
    assembly: Assembly, name: str, key: dict[str, Any]
) -> None:
    rule = rules(assembly)[name]
    limits = Environment.model_fields["firewall"].default
    limit = limits.requests_per_ip if name.endswith("ip") else limits.requests_per_token
    assert rule["Statement"]["RateBasedStatement"] == {"Limit": limit, "EvaluationWindowSec": 300, **key}
    answer = rule["Action"]["Block"]["CustomResponse"]
    assert answer["ResponseCode"] == 429
    assert answer["CustomResponseBodyKey"] in web_acl(assembly)["CustomResponseBodies"]


def test_everything_fits_in_the_capacity_that_costs_nothing_more(assembly: Assembly) -> None:
    # Units per statement, from the guide's chapters on each statement; a text transformation is 10.
    units = {"RateBasedStatement": 2, "LabelMatchStatement": 1, "RegexMatchStatement": 3}
    free = {"AndStatement", "OrStatement", "NotStatement"}
    total = 0
    for rule in rules(assembly).values():
        for kind, content in statements(rule["Statement"]):
            if kind == "ManagedRuleGroupStatement":
                total += MANAGED[content["Name"]]
            elif kind not in free:
                total += units[kind] + 10 * len(content.get("TextTransformations", []))
                total += sum(
                    30 + 10 * len(k["Header"]["TextTransformations"]) for k in content.get("CustomKeys", [])
                )
    assert 900 < total < 1500


def test_it_stands_before_the_stage(assembly: Assembly) -> None:
    association = assembly.one("AWS::WAFv2::WebACLAssociation")
    stage = assembly.one("AWS::ApiGateway::Stage")
    assert association.stack == stage.stack
    assert stage.logical_id in association.raw["DependsOn"]
    assert {"Ref": stage.logical_id} in association.properties["ResourceArn"]["Fn::Join"][1]


def test_logs_and_samples_hold_neither_tokens_nor_payloads(assembly: Assembly) -> None:
    logging = assembly.one("AWS::WAFv2::LoggingConfiguration").properties
    assert logging["RedactedFields"] == [{"SingleHeader": {"Name": "authorization"}}]
    [destination] = logging["LogDestinationConfigs"]
    group = f"aws-waf-logs-inference-{assembly.environment}"
    assert json.dumps(destination).rstrip(']}"').endswith(f":log-group:{group}")
    assert group in [g.properties["LogGroupName"] for g in assembly.resources("AWS::Logs::LogGroup")]
    protected = web_acl(assembly)["DataProtectionConfig"]["DataProtections"]
    assert [(p["Field"], p["Action"]) for p in protected] == [
        ({"FieldType": "SINGLE_HEADER", "FieldKeys": ["authorization"]}, "SUBSTITUTION"),
        ({"FieldType": "BODY"}, "SUBSTITUTION"),
    ]
