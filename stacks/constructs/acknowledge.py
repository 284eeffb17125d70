"""Findings of cdk-nag that are right as they are, each with its reason, beside the construct that they are
about.
"""

from collections.abc import Mapping

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct

CODES = ("AwsSolutions",)
"""The packs whose rules are codes: `L1`, `IAM5`."""

WORDS = ("NIST.800.53.R5", "Serverless")
"""The packs whose rules are words: `LambdaDLQ`; what both check, they call by the same name."""


def acknowledge(construct: IConstruct, findings: Mapping[str, str]) -> None:
    """Acknowledge rules, such as `L1` or `LambdaDLQ`, on a construct and what is below it, in every pack.

    Args:
        findings: rule, without its pack's name -> why it does not apply, for a reviewer.
    """
    for rule, reason in findings.items():
        for pack in CODES if rule.partition("[")[0].isupper() else WORDS:
            # With the pack's prefix the report lists the acknowledgement and its reason; without, it says
            # nothing.
            Validations.of(construct).acknowledge(Acknowledgment(id=f"{pack}::{pack}-{rule}", reason=reason))


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
