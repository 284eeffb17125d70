"""What CloudFormation takes, checked on what was synthesized; CDK checks the 500 resources of a stack."""

from pathlib import Path

from aws_cdk import cx_api

from catalog.errors import CatalogError, Problem

TEMPLATE_BYTES = 1_000_000
"""Largest template (AWS CloudFormation User Guide, quotas: 1 MB for a template in S3, where CDK puts it)."""


def check(assembly: cx_api.CloudAssembly) -> None:
    """Raises CatalogError for templates that CloudFormation would refuse."""
    problems = []
    for stack in assembly.stacks:
        size = Path(stack.template_full_path).stat().st_size
        if size > TEMPLATE_BYTES:
            message = (
                f"has {size} bytes of the {TEMPLATE_BYTES} that CloudFormation takes, and no request raises "
                "that: give some models an environment of their own"
            )
            problems.append(Problem(stack.template_file, 1, "", message))
    if problems:
        raise CatalogError(problems)
