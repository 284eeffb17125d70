"""GitHub's roles: whom they trust, what they may do, and what every nag pack says."""

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import Validations
from pydantic import ValidationError

from catalog.environment import Ci, Environment
from stacks.ci import ISSUER, CiStack
from tests.assembly import NAG_PACKS


def synthesized(environment: Environment, ci: Ci, folder: Path) -> dict[str, dict[str, object]]:
    app = cdk.App(outdir=str(folder))
    Validations.of(app).add_plugins(*(pack(app) for pack in NAG_PACKS.values()))
    CiStack(app, environment, ci)
    app.synth()
    template = json.loads((folder / f"inference-{environment.name}-ci.template.json").read_text())
    found: dict[str, dict[str, object]] = template["Resources"]
    return found


def test_each_role_trusts_one_kind_of_job_of_one_repository(
    dev_environment: Environment, tmp_path: Path
) -> None:
    resources = synthesized(dev_environment, Ci(repository="acme/inference"), tmp_path)
    roles = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::IAM::Role"]
    trusted = {}
    for role in roles:
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Condition"].keys() == {"StringEquals"}
        assert statement["Condition"]["StringEquals"][f"{ISSUER}:aud"] == "sts.amazonaws.com"
        trusted[role["RoleName"]] = statement["Condition"]["StringEquals"][f"{ISSUER}:sub"]
    assert trusted == {
        "inference-dev-ci-deploy": "repo:acme/inference:environment:dev",
        "inference-dev-ci-diff": "repo:acme/inference:pull_request",
    }
    assert "AWS::IAM::OIDCProvider" not in {r["Type"] for r in resources.values()}


def test_the_provider_outlives_the_stack(dev_environment: Environment, tmp_path: Path) -> None:
    resources = synthesized(dev_environment, Ci(repository="a/b", oidc_provider=True), tmp_path)
    [provider] = [r for r in resources.values() if r["Type"] == "AWS::IAM::OIDCProvider"]
    assert provider["DeletionPolicy"] == "Retain"


@pytest.mark.parametrize("repository", ["*", "acme/*", "acme", "acme/inference:ref", "acme@x/inference"])
def test_a_repository_is_named_exactly(repository: str) -> None:
    with pytest.raises(ValidationError):
        Ci(repository=repository)
