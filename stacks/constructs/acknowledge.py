"""Findings of cdk-nag and Checkov that are right as they are, each with its reason, beside the construct that
they are about.
"""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, CfnResource, Stack, Validations
from constructs import IConstruct

CODES = ("AwsSolutions",)
"""The packs of cdk-nag whose rules are codes: `L1`, `IAM5`."""

WORDS = ("NIST.800.53.R5", "Serverless")
"""The packs whose rules are words: `LambdaDLQ`; what both check, they call by the same name."""

CHECKOV = {
    "APIGWCacheEnabledAndEncrypted": "CKV_AWS_120",
    "LambdaConcurrency": "CKV_AWS_115",
    "LambdaDLQ": "CKV_AWS_116",
    "LambdaInsideVPC": "CKV_AWS_117",
    "S3BucketLoggingEnabled": "CKV_AWS_18",
}
"""Rules of cdk-nag that Checkov also has -> its check."""


def acknowledge(construct: IConstruct, findings: Mapping[str, str]) -> None:
    """Acknowledge rules on a construct: cdk-nag's also on what is below it, Checkov's on its own resource.

    Args:
        findings: rule -> why it does not apply, for a reviewer. A rule is cdk-nag's without its pack's name,
            as `L1` or `LambdaDLQ`, which covers Checkov's check of the same, or Checkov's own, as
            `CKV_AWS_173`.
    """
    for rule, reason in findings.items():
        if rule in CHECKOV or rule.startswith("CKV"):
            _skip(construct, CHECKOV.get(rule, rule), reason)
        if not rule.startswith("CKV"):
            for pack in CODES if rule.partition("[")[0].isupper() else WORDS:
                # With the pack's prefix the report lists the acknowledgement and its reason; without, it
                # says nothing.
                Validations.of(construct).acknowledge(
                    Acknowledgment(id=f"{pack}::{pack}-{rule}", reason=reason)
                )


def _skip(construct: IConstruct, check: str, reason: str) -> None:
    """Say it in the template, where Checkov reads it."""
    resource = construct if isinstance(construct, CfnResource) else construct.node.default_child
    if isinstance(resource, CfnResource):
        skipped = (resource.get_metadata("checkov") or {"skip": []})["skip"]
        resource.add_metadata("checkov", {"skip": [*skipped, {"id": check, "comment": reason}]})


def acknowledge_wildcards(role: IConstruct, resources: Mapping[str, str]) -> None:
    """Acknowledge the resources with a wildcard that a role's policies name.

    Args:
        resources: the resource, exactly as the policy has it -> why no narrower one is possible.
    """
    stack = Stack.of(role)
    acknowledge(
        role,
        {
            f"IAM5[Resource::{_as_nag_reads(stack.resolve(resource))}]": why
            for resource, why in resources.items()
        },
    )
    policy = role.node.try_find_child("DefaultPolicy")
    if policy and "*" in resources:
        acknowledge(policy, dict.fromkeys(("CKV_AWS_109", "CKV_AWS_111"), resources["*"]))


def _as_nag_reads(value: object) -> str:
    """A resolved value as cdk-nag writes it: references as `<Name>`, joins as plain text."""
    if isinstance(value, dict):
        if "Fn::Join" in value:
            separator, parts = value["Fn::Join"]
            return str(separator).join(_as_nag_reads(part) for part in parts)
        if "Ref" in value:
            return f"<{value['Ref']}>"
        if "Fn::GetAtt" in value:
            return f"<{'.'.join(value['Fn::GetAtt'])}>"
    return str(value)
