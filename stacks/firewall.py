"""The web ACL before the API: floods, known attackers and known attacks are refused before they cost much.

It never refuses an inference for its body (docs/decisions/0013-firewall-and-payloads.md).
"""

from dataclasses import replace
from typing import Any

from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.problems import THROTTLED

Statement = dict[str, Any]
"""A part of a rule, as `CfnWebACL` takes it: inside mappings the names of properties are in camel case."""

BODY_RULES = {
    "AWSManagedRulesCommonRuleSet": (
        "core-rule-set",
        ("SizeRestrictions", "EC2MetaDataSSRF", "GenericLFI", "GenericRFI", "CrossSiteScripting"),
    ),
    "AWSManagedRulesKnownBadInputsRuleSet": (
        "known-bad-inputs",
        ("JavaDeserializationRCE", "Log4JRCE", "ReactJSRCE"),
    ),
}
"""Managed rule group -> its label namespace, and those of its rules that look at the body.

Such a rule is named `<name>_BODY` and labels what it matches `awswaf:managed:aws:<namespace>:<name>_Body`
(AWS WAF's developer guide, "Baseline rule groups").
"""

PAYLOAD_PATHS = r"/v2/models/[^/]+/infer$"
"""Where bodies are tensors. A path that is written otherwise, percent-encoded say, is not one of them."""

WINDOW_SECONDS = 300

FLOOD = replace(THROTTLED, retry_after=60)

AS_IT_IS = [{"priority": 0, "type": "NONE"}]


class FirewallStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "firewall", environment, description="Web ACL before the inference API")
        settings = environment.firewall
        token = {"header": {"name": "authorization", "textTransformations": AS_IT_IS}}
        acl = waf.CfnWebACL(
            self,
            "WebAcl",
            name=self.names.prefix,
            description="Before the inference API",
            scope="REGIONAL",
            default_action={"allow": {}},
            # Cheapest first. Rules after a managed group see the labels that it put on the request.
            rules=_in_order(
                _rate("requests-per-ip", settings.requests_per_ip, aggregateKeyType="IP"),
                _rate(
                    "requests-per-token",
                    settings.requests_per_token,
                    aggregateKeyType="CUSTOM_KEYS",
                    customKeys=[token],
                ),
                _managed("AWSManagedRulesAmazonIpReputationList"),
                *(_managed(group, names) for group, (_, names) in BODY_RULES.items()),
                _bodies_outside_inference(),
            ),
            # As close to a problem as WAF comes: it knows neither its media type nor the request's id.
            custom_response_bodies={
                FLOOD.slug: {"contentType": "APPLICATION_JSON", "content": FLOOD.anonymous()}
            },
            association_config={
                "requestBody": {
                    "API_GATEWAY": {"defaultSizeInspectionLimit": f"KB_{settings.inspected_body_kb}"}
                }
            },
            # In logs and in the sampled requests of the console: no token, and no piece of a payload.
            data_protection_config={
                "dataProtections": [
                    {
                        "field": {"fieldType": "SINGLE_HEADER", "fieldKeys": ["authorization"]},
                        "action": "SUBSTITUTION",
                    },
                    {"field": {"fieldType": "BODY"}, "action": "SUBSTITUTION"},
                ]
            },
            visibility_config=_visibility(self.names.prefix),
        )
        self._log(acl)
        self.share("firewall/web-acl-arn", acl.attr_arn)

    def _log(self, acl: waf.CfnWebACL) -> None:
        """Log what a rule blocked or counted; the API's access log has every request."""
        name = self.names.firewall_log_group
        group = self.log_group("Logs", name)
        actions = ("BLOCK", "COUNT", "EXCLUDED_AS_COUNT")
        logging = waf.CfnLoggingConfiguration(
            self,
            "Logging",
            resource_arn=acl.attr_arn,
            # WAF wants the group's ARN without the `:*` at the end of the one that CloudFormation gives.
            log_destination_configs=[self.regional_arn("logs", f"log-group:{name}")],
            redacted_fields=[{"singleHeader": {"Name": "authorization"}}],
            logging_filter={
                "DefaultBehavior": "DROP",
                "Filters": [
                    {
                        "Behavior": "KEEP",
                        "Requirement": "MEETS_ANY",
                        "Conditions": [{"ActionCondition": {"Action": action}} for action in actions],
                    }
                ],
            },
        )
        logging.node.add_dependency(group)


def _rate(name: str, limit: int, **key: Any) -> Statement:
    """Refuse, with 429, whoever sent more than `limit` requests in the window."""
    refusal = {
        "responseCode": FLOOD.status,
        "customResponseBodyKey": FLOOD.slug,
        "responseHeaders": [{"name": "Retry-After", "value": str(FLOOD.retry_after)}],
    }
    return _rule(
        name,
        {"rateBasedStatement": {"limit": limit, "evaluationWindowSec": WINDOW_SECONDS, **key}},
        action={"block": {"customResponse": refusal}},
    )


def _managed(group: str, body_rules: tuple[str, ...] = ()) -> Statement:
    """One of AWS's rule groups, as AWS keeps it, except that its rules about bodies only count."""
    overrides = [{"name": f"{name}_BODY", "actionToUse": {"count": {}}} for name in body_rules]
    statement = {"vendorName": "AWS", "name": group, "ruleActionOverrides": overrides or None}
    return _rule(group, {"managedRuleGroupStatement": statement}, overrideAction={"none": {}})


def _bodies_outside_inference() -> Statement:
    """Refuse what the rules about bodies counted, wherever a body is not a tensor."""
    labels = [
        f"awswaf:managed:aws:{namespace}:{name}_Body"
        for namespace, names in BODY_RULES.values()
        for name in names
    ]
    labelled = [{"labelMatchStatement": {"scope": "LABEL", "key": label}} for label in labels]
    inference = {
        "regexMatchStatement": {
            "fieldToMatch": {"uriPath": {}},
            "regexString": PAYLOAD_PATHS,
            "textTransformations": AS_IT_IS,
        }
    }
    both = [{"orStatement": {"statements": labelled}}, {"notStatement": {"statement": inference}}]
    return _rule("bodies-outside-inference", {"andStatement": {"statements": both}}, action={"block": {}})


def _rule(name: str, statement: Statement, **effect: Any) -> Statement:
    return {"name": name, "statement": statement, "visibilityConfig": _visibility(name), **effect}


def _in_order(*rules: Statement) -> list[Statement]:
    return [{"priority": priority, **rule} for priority, rule in enumerate(rules)]


def _visibility(metric: str) -> Statement:
    return {"cloudWatchMetricsEnabled": True, "metricName": metric, "sampledRequestsEnabled": True}
