"""Calls from inside a VPC leave it through an endpoint, whose policy must allow them.

No packet is routed here. But whose call comes from which subnets is known, by the credentials that a function
or a model got: it is refused unless the VPC has an endpoint for the service there, and unless the endpoint's
policy allows it. On AWS a call without an endpoint hangs until the client gives up.
Sources: docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html and gateway-endpoints.html.
"""

from __future__ import annotations

import contextvars
import json
import threading
from dataclasses import dataclass
from typing import Any

from ministack.core import iam_actions, iam_evaluator, responses
from ministack.core.iam_evaluator import EvalContext, EvalResult
from ministack.services import ec2

from local_aws import audit, roles
from local_aws.patches import replace_everywhere
from local_aws.wire import Json, Response

# The endpoint service of MiniStack's services, where it is not called the same.
_ENDPOINT_SERVICES = {"cognito-idp": "cognito-idp", "stepfunctions": "states"}


@dataclass(frozen=True)
class Place:
    """Where calls come from: the subnets of a function or a model."""

    subnets: tuple[str, ...]


_places: dict[str, Place] = {}
_lock = threading.Lock()


def put(access_key_id: str, vpc_config: Json | None) -> None:
    """Calls signed with this key come from the subnets of `vpc_config`, if it names any."""
    subnets = tuple((vpc_config or {}).get("SubnetIds") or (vpc_config or {}).get("Subnets") or ())
    with _lock:
        if subnets:
            _places[access_key_id] = Place(subnets)
        else:
            _places.pop(access_key_id, None)


def install() -> None:
    """Check the way of every call that comes from inside a VPC."""
    known = iam_evaluator.enforce

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Json | None = None,
    ) -> Any:
        place = _places.get(access_key_id)
        if place is None:
            return known(access_key_id, iam_action, service, region, resource_arn, service_context)
        endpoints = [
            _endpoint(subnet, _endpoint_service(service, iam_action, region)) for subnet in place.subnets
        ]
        missing = [subnet for subnet, one in zip(place.subnets, endpoints, strict=True) if one is None]
        way: Json = endpoints[0] or {}
        context = dict(service_context or {})
        if way:
            context |= {"aws:SourceVpce": way["VpcEndpointId"], "aws:SourceVpc": way["VpcId"]}
        denied = known(access_key_id, iam_action, service, region, resource_arn, context)
        if denied is not None:
            return denied
        caller = iam_evaluator.resolve_caller_identity(access_key_id) or {}
        call = EvalContext(
            principal_arn=caller.get("userArn", ""),
            principal_type="AssumedRole",
            principal_account=responses.get_account_id(),
            action=iam_action,
            resource_arn=resource_arn,
            region=region,
            service_context={key.lower(): value for key, value in context.items()},
        )
        if missing:
            said = f"no VPC endpoint leads from {', '.join(missing)} to {service}"
        elif _allows(way.get("PolicyDocument"), call):
            return None
        else:
            said = f"no VPC endpoint policy of {way['VpcEndpointId']} allows the {iam_action} action"
        message = (
            f"User: {call.principal_arn} is not authorized to perform: {iam_action} "
            f"on resource: {resource_arn} because {said}"
        )
        audit.refused(call.principal_arn, iam_action, resource_arn, message, key=access_key_id, request=True)
        _reason.set(message)
        return EvalResult("ImplicitDeny", call.principal_arn, "", message)

    replace_everywhere(known, enforce)
    _say_why()


# Why the call that is being answered found no way out, worded as AWS words a refusal.
_reason: contextvars.ContextVar[str] = contextvars.ContextVar("reason", default="")


def _say_why() -> None:
    """A refusal names the endpoint, where MiniStack would name the caller's policies."""
    known = iam_actions.access_denied_response

    def access_denied_response(service: str, *about: Any, message: str = "", **more: Any) -> Response:
        reason = _reason.get()
        _reason.set("")
        status, headers, body = known(service, *about, message=message or reason, **more)
        if reason and service in ("ssm", "logs"):  # which word every refusal themselves
            body = json.dumps({"__type": "AccessDeniedException", "Message": reason}).encode()
        return status, headers, body

    iam_actions.access_denied_response = access_denied_response


def _allows(policy: str | Json | None, call: EvalContext) -> bool:
    # The default policy is full access.
    return not policy or iam_evaluator.evaluate_resource_policy(policy, call).decision == "Allow"


def _endpoint_service(service: str, action: str, region: str) -> str:
    name = _ENDPOINT_SERVICES.get(service, service)
    if service == "sagemaker":
        name = "sagemaker.runtime" if action.startswith("sagemaker:InvokeEndpoint") else "sagemaker.api"
    return f"com.amazonaws.{region}.{name}"


def _endpoint(subnet: str, service: str) -> Json | None:
    """The endpoint through which calls from `subnet` reach `service`, if there is one."""
    vpc = (ec2._subnets.get(subnet) or {}).get("VpcId")
    found: list[Json] = [
        endpoint
        for endpoint in ec2._vpc_endpoints.values()
        if endpoint["VpcId"] == vpc
        and endpoint["ServiceName"] == service
        and (
            _route_table(vpc, subnet) in endpoint["RouteTableIds"]
            if endpoint["VpcEndpointType"] == "Gateway"
            # Clients find an interface endpoint by the service's own name only if its DNS is private.
            else str(endpoint["PrivateDnsEnabled"]).lower() == "true"
        )
    ]
    return found[0] if found else None


def _route_table(vpc: str | None, subnet: str) -> str:
    """The subnet's own route table, else the main one of its VPC."""
    main = ""
    for identifier, table in ec2._route_tables.items():
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet:
                return str(identifier)
            if association.get("Main") and table["VpcId"] == vpc:
                main = str(identifier)
    return main


# What an execution role must be allowed, for a function or a model to be put into a VPC. Neither service says
# which subnet or group it asks about, and the Describe actions know no resources.
LAMBDA_RIGHTS = (
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DeleteNetworkInterface",
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
)
SAGEMAKER_RIGHTS = (
    "CreateNetworkInterface",
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
    "DescribeNetworkInterfaces",
    "DescribeVpcs",
    "DescribeDhcpOptions",
    "DescribeSubnets",
    "DescribeSecurityGroups",
)


def missing_right(role_arn: str, session: str, rights: tuple[str, ...]) -> str | None:
    """The first of these EC2 actions that the role may not do, None if it may do all."""
    for right in rights:
        if roles.refusal(role_arn, session, f"ec2:{right}", "*"):
            return right
    return None
