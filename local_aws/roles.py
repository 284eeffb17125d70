"""An AWS service acting as a role: its trust policy is checked, then its policies bound the service."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from ministack.core import iam_actions, iam_evaluator, responses
from ministack.services import iam, sts

from local_aws import audit

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
        role = check_trust(account, role_arn, service)
        name = role["RoleName"]
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


def check_trust(
    account: str, role_arn: str, service: str, context: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The role, which `service` may assume; raises NotAssumable if it is not there or does not trust it."""
    role: dict[str, Any] | None = iam._roles.get_scoped(account, None, role_arn.rsplit("/", 1)[-1])
    if role is None:
        raise NotAssumable(f"the role {role_arn} does not exist")
    if not _trusts(role["AssumeRolePolicyDocument"], service, account, context):
        raise NotAssumable(f"the trust policy of {role_arn} does not let {service} assume it")
    return role


def _trusts(
    policy: str | dict[str, Any], service: str, account: str, context: Mapping[str, str] | None
) -> bool:
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document.get("Statement", [])
    # A trust policy names no resource: it is the role's own.
    on_itself = [
        {**one, "Resource": "*"} for one in ([statements] if isinstance(statements, dict) else statements)
    ]
    return service_allowed(
        {"Statement": on_itself}, service, "sts:AssumeRole", "*", account=account, context=context
    )


def service_allowed(
    policy: str | dict[str, Any] | None,
    service: str,
    action: str,
    resource: str,
    *,
    account: str,
    context: Mapping[str, str] | None = None,
) -> bool:
    """Whether a resource's policy lets a service principal do something on behalf of `account`."""
    call = iam_evaluator.EvalContext(
        principal_arn=service,
        principal_type="Service",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=responses.get_region(),
        secure_transport=True,
        service_context={
            "aws:sourceaccount": account,
            "aws:principalservicename": service,
            **_lower(context),
        },
    )
    decision = iam_evaluator.evaluate_resource_policy(policy, call, service=service)
    return bool(decision.decision == "Allow")


def refusal(
    role_arn: str, session: str, action: str, resource: str, context: Mapping[str, str] | None = None
) -> str | None:
    """Why a session of `role_arn` may not do `action` on `resource`, as AWS words it; None if it may.

    Its policies, boundary and the resource's own policy decide, and the decision is recorded. `context` are
    condition keys. To be called within the scope of an account and a region.
    """
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    call = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{name}/{session[:64]}",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=responses.get_region(),
        service_context=_lower(context),
    )
    boundary = iam_evaluator._permissions_boundary(iam._roles, name, account)
    result = iam_evaluator.evaluate(call, iam_evaluator._gather_role_policies(name, account), *boundary)
    service = action.partition(":")[0]
    found = iam_evaluator._resource_policy(service, resource)
    if found is not None:
        required = service in iam_evaluator._POLICY_REQUIRED
        result = iam_evaluator.combine_resource_policy(
            result, call, *found, required=required, limits=tuple(boundary)
        )
    audit.used(call.principal_arn)
    if result.decision == "Allow":
        return None
    message = iam_actions.identity_denial_message(
        action, call.principal_arn, resource, result.decision == "Deny"
    )
    audit.refused(call.principal_arn, action, resource, message)
    return str(message)


def _lower(context: Mapping[str, str] | None) -> dict[str, str]:
    return {key.lower(): value for key, value in (context or {}).items()}


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
