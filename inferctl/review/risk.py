"""How much care a change needs: safe, to review, or dangerous, with the reason in words.

Dangerous is what loses data, opens a door or takes a protection away; it stops a pipeline unless it was
declared. Everything that no rule calls safe is to be reviewed.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inferctl.review.changes import Change, PropertyPath

Rating = Literal["safe", "review", "dangerous"]

STATEFUL = {
    "AWS::ApiGateway::RestApi": "the address that clients call",
    "AWS::CloudTrail::Trail": "the record of who did what",
    "AWS::Cognito::UserPool": "its clients and users",
    "AWS::Cognito::UserPoolClient": "the id and secret that an application uses",
    "AWS::Cognito::UserPoolDomain": "the address that tokens come from",
    "AWS::Cognito::UserPoolUser": "a user",
    "AWS::DynamoDB::GlobalTable": "its items",
    "AWS::DynamoDB::Table": "its items",
    "AWS::ECR::Repository": "its images",
    "AWS::EFS::FileSystem": "its files",
    "AWS::KMS::Key": "everything that only it can decrypt",
    "AWS::Kinesis::Stream": "its records",
    "AWS::Logs::LogGroup": "its logs",
    "AWS::RDS::DBCluster": "its data",
    "AWS::RDS::DBInstance": "its data",
    "AWS::S3::Bucket": "its objects",
    "AWS::SNS::Topic": "its confirmed subscriptions",
    "AWS::SQS::Queue": "its messages",
    "AWS::SecretsManager::Secret": "the secret",
}
"""Types that hold what cannot be made again -> what is lost with them."""

GUARDS = {
    "AWS::EC2::FlowLog": "the record of network traffic",
    "AWS::GuardDuty::Detector": "threat detection",
    "AWS::KMS::ReplicaKey": "a key's replica",
    "AWS::S3::BucketPolicy": "what a bucket refuses",
    "AWS::WAFv2::LoggingConfiguration": "the firewall's record",
    "AWS::WAFv2::WebACL": "the firewall",
    "AWS::WAFv2::WebACLAssociation": "the firewall before the API",
}
"""Types whose absence leaves something unprotected -> what is gone."""

WAYS_OUT = {
    "AWS::EC2::EgressOnlyInternetGateway",
    "AWS::EC2::InternetGateway",
    "AWS::EC2::NatGateway",
    "AWS::EC2::TransitGatewayAttachment",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::EC2::VPCPeeringConnection",
}

MADE_ANEW = {
    "AWS::ApiGateway::Deployment",
    "AWS::Lambda::Version",
    "AWS::SageMaker::EndpointConfig",
    "AWS::SageMaker::Model",
}
"""Immutable by design: a change is a new one, and what serves moves over to it."""

HARMLESS_TYPES = {"AWS::CloudWatch::Dashboard", "AWS::Logs::QueryDefinition"}

HARMLESS_PROPERTIES = {"Tags", "Description", "AlarmDescription", "UserPoolTags"}

RIGHTS = re.compile(
    r"AWS::IAM::.*|.*Policy|AWS::Lambda::Permission|AWS::KMS::.*|AWS::EC2::SecurityGroup.*|AWS::EC2::Route.*"
    r"|AWS::EC2::VPCEndpoint|AWS::WAFv2::.*"
)
"""Types that say who may do what; new ones are looked at."""

NO_RESOURCE_LEVEL = re.compile(
    r"xray:(Put|Get)\w+|cloudwatch:PutMetricData|ecr:GetAuthorizationToken"
    r"|ec2:(Describe\w+|(Create|Delete)NetworkInterface(Permission)?|(Una|A)ssignPrivateIpAddresses)"
)
"""Actions that AWS lets nobody limit to a resource, by the service authorization reference."""

_ANYWHERE = {"0.0.0.0/0", "::/0"}


def _is(*wanted: Any) -> Callable[[Any], bool]:
    return lambda value: value in wanted


def _given(value: Any) -> bool:
    return value not in (None, "", [], {})


PROTECTIONS: dict[str, Callable[[Any], bool]] = {
    "AccessLogSetting": _given,
    "AuthType": lambda value: value != "NONE",
    "AuthorizationType": lambda value: value != "NONE",
    "BlockPublicAcls": _is(True),
    "BlockPublicPolicy": _is(True),
    "BucketEncryption": _given,
    "DeletionProtection": _is("ACTIVE", True),
    "DeletionProtectionEnabled": _is(True),
    "EnableKeyRotation": _is(True),
    "EnableLogFileValidation": _is(True),
    "EnableNetworkIsolation": _is(True),
    "IgnorePublicAcls": _is(True),
    "IsLogging": _is(True),
    "KMSKeyId": _given,
    "KmsKeyArn": _given,
    "KmsKeyId": _given,
    "KmsMasterKeyId": _given,
    "LoggingConfiguration": _given,
    "MfaConfiguration": _is("ON"),
    "ObjectLockEnabled": _is(True, "Enabled"),
    "ObjectOwnership": _is("BucketOwnerEnforced"),
    "PermissionsBoundary": _given,
    "PointInTimeRecoveryEnabled": _is(True),
    "PublicAccessBlockConfiguration": _given,
    "RestrictPublicBuckets": _is(True),
    "SSEAlgorithm": _is("aws:kms", "aws:kms:dsse"),
    "SSEEnabled": _is(True),
    "SqsManagedSseEnabled": _is(True),
    "StorageEncrypted": _is(True),
    "VersioningConfiguration": lambda value: isinstance(value, dict) and value.get("Status") == "Enabled",
    "VpcConfig": _given,
}
"""Properties that protect, by their name -> whether a value still does."""


@dataclass(frozen=True)
class Rated:
    """A change with its rating and the reason for it."""

    change: Change
    rating: Rating
    reasons: tuple[str, ...]


def rate(change: Change) -> Rated:
    """The rating of a change: dangerous if any rule says so, safe only if nothing needs a look."""
    dangers = tuple(dict.fromkeys(reason for rule in _RULES for reason in rule(change)))
    if dangers:
        return Rated(change, "dangerous", dangers)
    return _harmless(change) or Rated(change, "review", (_what_to_look_at(change),))


def _harmless(change: Change) -> Rated | None:
    if change.type in HARMLESS_TYPES:
        return Rated(change, "safe", ("only shown",))
    if change.type in MADE_ANEW:
        return Rated(change, "safe", ("immutable: made anew by design",))
    if change.action == "add" and not RIGHTS.fullmatch(change.type):
        return Rated(change, "safe", ("new",))
    touched = {path[0] for path in change.properties if path}
    if change.action == "modify" and touched and touched <= HARMLESS_PROPERTIES and _attributes_equal(change):
        return Rated(change, "safe", ("words only",))
    return None


def _attributes_equal(change: Change) -> bool:
    attributes = change.before.keys() | change.after.keys()
    return all(change.before.get(key) == change.after.get(key) for key in attributes - {"Properties"})


def _what_to_look_at(change: Change) -> str:
    if change.action == "add":
        return "grants rights or opens a way"
    if change.action == "remove":
        return "no longer there"
    if change.action == "replace":
        return f"made anew, then the old one is deleted: {_listed(change.properties)}"
    return _listed(change.properties) or "attributes of the resource"


def _listed(paths: tuple[PropertyPath, ...]) -> str:
    tops = list(dict.fromkeys(path[0] for path in paths if path))
    return ", ".join(tops[:4]) + (", …" if len(tops) > 4 else "")


def _loses_state(change: Change) -> Iterator[str]:
    if change.action not in ("remove", "replace"):
        return
    kept = change.before.get("DeletionPolicy" if change.action == "remove" else "UpdateReplacePolicy")
    retained = kept in ("Retain", "RetainExceptOnCreate", "Snapshot")
    if what := STATEFUL.get(change.type) or _live_version(change):
        means = (
            f": a new {_listed(change.properties)} means a new resource" if change.action == "replace" else ""
        )
        yield (f"leaves {what} behind, out of the stack's reach" if retained else f"loses {what}") + means
    if change.action == "remove" and (gone := GUARDS.get(change.type)):
        yield f"loses {gone}"


def _live_version(change: Change) -> str | None:
    name = change.before.get("Properties", {}).get("Name")
    is_live = change.type == "AWS::SSM::Parameter" and isinstance(name, str) and name.endswith("/live")
    return "the parameter that says which version is live" if is_live else None


def _keeps_less(change: Change) -> Iterator[str]:
    if change.action not in ("modify", "replace"):
        return
    for attribute in ("DeletionPolicy", "UpdateReplacePolicy"):
        old, new = change.before.get(attribute, "Delete"), change.after.get(attribute, "Delete")
        if old != "Delete" and new == "Delete":
            yield f"{attribute} {old} becomes {new}"


def _protects_less(change: Change) -> Iterator[str]:
    if change.action not in ("modify", "replace"):
        return
    now = dict(_protections(change.after.get("Properties", {})))
    for path, (name, value) in _protections(change.before.get("Properties", {})).items():
        protects = PROTECTIONS[name]
        if protects(value) and not protects(now.get(path, (name, None))[1]):
            yield f"{name} no longer protects it"


def _protections(value: Any, path: PropertyPath = ()) -> dict[PropertyPath, tuple[str, Any]]:
    found: dict[PropertyPath, tuple[str, Any]] = {}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        here = (*path, str(key))
        if key in PROTECTIONS:
            found[here] = (str(key), below)
        found |= _protections(below, here)
    return found


@dataclass(frozen=True)
class _Grant:
    """One action of one statement; principal, resource and condition are JSON."""

    effect: str
    action: str
    resource: str
    principal: str
    condition: str


def _widens_rights(change: Change) -> Iterator[str]:
    before, after = _grants(change.before), _grants(change.after)
    for grant in sorted(after - before, key=repr):
        if grant.effect != "Allow":
            continue
        its_own_key = change.type == "AWS::KMS::Key"
        if grant.action == "*" or (grant.action.endswith(":*") and not its_own_key):
            yield f"allows every action: {grant.action}"
        if (
            grant.resource == '"*"'
            and grant.principal == "null"
            and not NO_RESOURCE_LEVEL.fullmatch(grant.action)
        ):
            yield f"allows {grant.action} on every resource"
        if grant.principal in ('"*"', '{"AWS": "*"}') and grant.condition == "null":
            yield f"allows {grant.action} to everybody"
        bound = [g for g in before if _same_but_condition(g, grant) and g.condition != "null"]
        if grant.condition == "null" and bound:
            yield f"allows {grant.action} without its condition"
    if change.action != "remove":
        for grant in sorted(before - after, key=repr):
            if grant.effect == "Deny":
                yield f"no longer denies {grant.action}"
    old, new = (_managed(resource) for resource in (change.before, change.after))
    for policy in sorted(new - old):
        if re.search(
            r"policy/(\S*/)?(AdministratorAccess|PowerUserAccess|IAMFullAccess|\w+FullAccess)", policy
        ):
            yield f"attaches {policy.rsplit('/', 1)[-1].strip(chr(34) + ']}')}"
    if (
        change.type == "AWS::Lambda::Permission"
        and change.after.get("Properties", {}).get("Principal") == "*"
    ):
        yield "lets everybody invoke the function"


def _same_but_condition(one: _Grant, other: _Grant) -> bool:
    return (one.effect, one.action, one.resource, one.principal) == (
        other.effect, other.action, other.resource, other.principal,
    )  # fmt: skip


def _grants(value: Any) -> set[_Grant]:
    """What every policy document in a resource says, action by action."""
    found: set[_Grant] = set()
    if isinstance(value, list):
        return found.union(*(_grants(item) for item in value))
    if not isinstance(value, dict):
        return found
    statements = value.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        if not (isinstance(statement, dict) and "Effect" in statement):
            continue
        # "Everything but" is everything, for a reader in a hurry.
        actions = "*" if "NotAction" in statement else statement.get("Action", ())
        resources = "*" if "NotResource" in statement else statement.get("Resource")
        principal = "*" if "NotPrincipal" in statement else statement.get("Principal")
        found |= {
            _Grant(
                statement["Effect"],
                str(action),
                _text(resource),
                _text(principal),
                _text(statement.get("Condition")),
            )
            for action in ([actions] if isinstance(actions, str) else actions)
            for resource in (resources if isinstance(resources, list) else [resources])
        }
    return found.union(*(_grants(item) for item in value.values()))


def _managed(resource: Mapping[str, Any]) -> set[str]:
    return {_text(arn) for arn in resource.get("Properties", {}).get("ManagedPolicyArns", ())}


def _opens_the_network(change: Change) -> Iterator[str]:
    if change.action == "add" and change.type in WAYS_OUT:
        yield "gives the network a way out"
    if change.type == "AWS::EC2::Route" and change.action != "remove":
        target = change.after.get("Properties", {})
        if {target.get("DestinationCidrBlock"), target.get("DestinationIpv6CidrBlock")} & _ANYWHERE:
            yield "routes to everywhere"
    if change.type.startswith("AWS::EC2::SecurityGroup"):
        for rule in sorted(_open_rules(change.after) - _open_rules(change.before)):
            yield f"opens the security group: {rule}"


def _open_rules(value: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(value, list):
        return found.union(*(_open_rules(item) for item in value))
    if isinstance(value, dict):
        anywhere = {str(value.get("CidrIp")), str(value.get("CidrIpv6"))} & _ANYWHERE
        found |= {f"{cidr} at port {value.get('FromPort', 'any')}" for cidr in anywhere}
        return found.union(*(_open_rules(item) for item in value.values()))
    return found


def _opens_the_api(change: Change) -> Iterator[str]:
    if change.type != "AWS::ApiGateway::RestApi" or change.action == "remove":
        return
    for operation in sorted(_open_operations(change.after) - _open_operations(change.before)):
        yield f"answers {operation} without a token"


def _open_operations(resource: Mapping[str, Any]) -> set[str]:
    body = resource.get("Properties", {}).get("Body") or {}
    return {
        f"{method.upper()} {path}"
        for path, methods in body.get("paths", {}).items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
        and method != "parameters"
        and not operation.get("security", body.get("security"))
    }


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_RULES: tuple[Callable[[Change], Iterator[str]], ...] = (
    _loses_state,
    _keeps_less,
    _protects_less,
    _widens_rights,
    _opens_the_network,
    _opens_the_api,
)
