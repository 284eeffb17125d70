"""An AWS service acting as a role: its trust policy is checked, then its policies bound the service."""

from __future__ import annotations

import json
import os
import secrets
import threading
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from ministack.core import iam_evaluator, responses
from ministack.services import iam, sts

_client_lock = threading.Lock()


class NotAssumable(Exception):
    """The role does not exist, or its trust policy does not admit the service."""


@dataclass(frozen=True)
class Credentials:
    """A role session's temporary credentials."""

    access_key_id: str
    secret_access_key: str
    session_token: str

    def as_environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


def assume(account: str, region: str, role_arn: str, service: str, session: str) -> Credentials:
    """Credentials of `role_arn` for `service` (a principal such as `sagemaker.amazonaws.com`).

    Raises NotAssumable if the role is not there or does not trust the service.
    """
    with responses.request_scope(account, region):
        name = role_arn.rsplit("/", 1)[-1]
        role = iam._roles.get(name)
        if role is None:
            raise NotAssumable(f"the role {role_arn} does not exist")
        if not _trusts(role["AssumeRolePolicyDocument"], service, account):
            raise NotAssumable(f"the trust policy of {role_arn} does not let {service} assume it")
        credentials = Credentials(
            f"ASIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30), secrets.token_urlsafe(48)
        )
        sts.register_session(
            credentials.access_key_id,
            {
                "Arn": f"arn:aws:sts::{account}:assumed-role/{name}/{session[:64]}",
                "UserId": f"{role['RoleId']}:{session[:64]}",
                "SecretAccessKey": credentials.secret_access_key,
                "SessionToken": credentials.session_token,
            },
        )
        return credentials


def _trusts(policy: str | dict[str, Any], service: str, account: str) -> bool:
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document.get("Statement", [])
    # A trust policy names no resource: it is the role's own.
    on_itself = [
        {**one, "Resource": "*"} for one in ([statements] if isinstance(statements, dict) else statements)
    ]
    context = iam_evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account=account,
        action="sts:AssumeRole",
        resource_arn="*",
        region="",
        service_context={"aws:sourceaccount": account},
    )
    decision = iam_evaluator.evaluate_resource_policy({"Statement": on_itself}, context, service=service)
    return bool(decision.decision == "Allow")


def client(service: str, region: str, credentials: Credentials) -> Any:
    """A boto3 client of the embedded AWS with these credentials, over TLS like anyone's: IAM is enforced."""
    # boto3 is not thread-safe while it builds a client.
    with _client_lock:
        return boto3.session.Session(
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
            aws_session_token=credentials.session_token,
            region_name=region,
        ).client(
            service,
            endpoint_url=os.environ["AWS_ENDPOINT_URL"],
            verify=os.environ["AWS_CA_BUNDLE"],
            config=Config(retries={"total_max_attempts": 2}),
        )
