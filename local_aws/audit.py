"""CloudTrail's event history: who called what, and what was refused.

MiniStack records every call as that of a user named like the access key, and forgets those that IAM refused.
Here an event has the caller's identity, and a refused call the error code and message, as
docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html says. Data
events (objects, invocations, log lines) are among them, which AWS delivers to a trail only.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from pathlib import Path
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator, responses, router
from ministack.core.iam_evaluator import resolve_caller_identity
from ministack.services import cloudtrail, iam

from local_aws import trails
from local_aws.state import Home
from local_aws.wire import Json, Response

# Services whose requests carry somebody's data.
_PAYLOADS = {"lambda", "logs", "sns", "sqs", "xray"}
PAGE = 50  # events, the most that LookupEvents returns at once

# Whether the request that is being answered was refused: a fresh list for each, filled when it is.
_refusals: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("refusals", default=None)


def install(home: Home) -> None:
    """Record events here, and page through them as CloudTrail does; and which rights roles use."""
    _record_rights(home.rights)
    dispatch = app._dispatch_service_request

    async def dispatch_service_request(*request: Any) -> Response:
        token = _refusals.set([])
        try:
            answer: Response = await dispatch(*request)
            return answer
        finally:
            _refusals.reset(token)

    app._dispatch_service_request = dispatch_service_request
    app._maybe_record_cloudtrail = _record_call
    cloudtrail._DISPATCH["LookupEvents"] = _lookup_events
    role_xml = iam._role_xml

    def with_last_use(name: str, boundary: bool = True) -> str:
        used = (iam._roles[name].get("RoleLastUsed") or {}).items()
        # Like the boundary, it is GetRole's alone: ListRoles leaves it out.
        last = "".join(f"<{member}>{value}</{member}>" for member, value in used) if boundary else ""
        return f"{role_xml(name, boundary)}<RoleLastUsed>{last}</RoleLastUsed>"

    iam._role_xml = with_last_use


def refused(
    principal_arn: str, action: str, resource: str, message: str, *, key: str = "", request: bool = False
) -> None:
    """Record that IAM refused `action`, such as `s3:GetObject`, to a principal.

    `request`: it ends the request that is being answered, which is then no event of its own.
    """
    _rights.add(principal_arn, action, "", allowed=False)
    refusals = _refusals.get()
    if request and refusals is not None:
        refusals.append(action)
    namespace, _, name = action.partition(":")
    _record(
        _identity(principal_arn, key),
        source=namespace,
        name=name,
        read_only=cloudtrail._is_readonly("POST", name),
        resources=[{"ResourceName": resource, "ResourceType": f"AWS::{namespace}"}],
        errorCode="AccessDenied",
        errorMessage=message,
    )


def used(principal_arn: str) -> None:
    """Note when a role was last used, which GetRole then tells."""
    role = _role(principal_arn)
    if role is not None:
        role["RoleLastUsed"] = {"LastUsedDate": _iso(time.time()), "Region": responses.get_region()}


class _Rights:
    """A file of what was decided about roles: which statement allowed what, and what was refused, each once.
    A right that is not there is one that nothing has needed so far.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._known, self._lock = file, set[tuple[str, str, str, bool]](), threading.Lock()
        file.unlink(missing_ok=True)

    def add(self, principal_arn: str, action: str, sid: str, *, allowed: bool) -> None:
        role = principal_arn.partition(":assumed-role/")[2].partition("/")[0]
        decision = (role, action, sid, allowed)
        with self._lock:
            if not role or decision in self._known:
                return
            self._known.add(decision)
            members = dict(zip(("role", "action", "sid", "allowed"), decision, strict=True))
            with self._file.open("a") as lines:
                lines.write(f"{json.dumps(members)}\n")


_rights: _Rights


def _record_rights(file: Path) -> None:
    global _rights
    _rights, evaluate = _Rights(file), iam_evaluator.evaluate

    def recorded(call: Any, policies: Any, *limits: Any) -> Any:
        result = evaluate(call, policies, *limits)
        if result.decision == "Allow":
            _rights.add(call.principal_arn, call.action, result.matched_sid, allowed=True)
        return result

    iam_evaluator.evaluate = recorded


def _record_call(
    service: str,
    method: str,
    path: str,
    headers: Json,
    body: bytes,
    query: Json,
    request_id: str,
    region: str,
) -> None:
    """MiniStack's signature: a call that was authorized and answered, or refused by a check of ours."""
    if service == "cloudtrail" or path.startswith("/_") or _refusals.get():
        return
    name = app._ct_event_name(service, method, path, headers, query)
    if "." in name:  # MiniStack knows no better than method and service
        action = iam_actions.extract_iam_action(service, method, path, headers, body, query)
        name = action.partition(":")[2] if action else name
    key = router.extract_access_key_id(headers, query) or ""
    resources = app._ct_resources(service, method, path, body)
    _record(
        _identity(_caller(key), key),
        source=iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service, service),
        name=name,
        read_only=cloudtrail._is_readonly(method, name),
        resources=resources,
        requestParameters=_parameters(service, headers, body, query, resources),
        userAgent=headers.get("user-agent", ""),
        requestID=request_id,
    )


def _parameters(service: str, headers: Json, body: bytes, query: Json, resources: list[Json]) -> Json:
    """What was asked for, without payloads: no event of CloudTrail has an object, a message or a log line."""
    if service == "s3":
        return {
            name: one["ResourceName"] for name, one in zip(("bucketName", "key"), resources, strict=False)
        }
    invoked = service == "sagemaker" and "x-amz-target" not in headers
    if service in _PAYLOADS or invoked:
        return {}
    parameters: Json = cloudtrail._scrub(app._ct_request_params(headers, body, query))
    return parameters


def _caller(key: str) -> str:
    """The ARN of whose access key this is; nobody's is empty."""
    if iam_evaluator.is_root_access_key(key):
        return f"arn:aws:iam::{responses.get_account_id()}:root"
    caller = resolve_caller_identity(key)
    return str(caller["userArn"]) if caller else ""


def _record(
    identity: Json, *, source: str, name: str, read_only: str, resources: list[Json], **more: object
) -> None:
    event_id, now, region = responses.new_uuid(), time.time(), responses.get_region()
    source = f"{source}.amazonaws.com"
    event = {
        "eventVersion": "1.11",
        "userIdentity": identity,
        "eventTime": _iso(now),
        "eventSource": source,
        "eventName": name,
        "awsRegion": region,
        "sourceIPAddress": "127.0.0.1",
        "userAgent": "",
        "requestParameters": None,
        "responseElements": None,
        "requestID": responses.new_uuid(),
        **more,
        "eventID": event_id,
        "readOnly": read_only == "true",
        "eventType": "AwsApiCall",
        "recipientAccountId": responses.get_account_id(),
    }
    cloudtrail._get_event_queue().append(
        {
            "EventId": event_id,
            "EventName": name,
            "EventSource": source,
            "EventTime": now,
            "Username": _user_name(identity),
            "AccessKeyId": identity.get("accessKeyId", ""),
            "ReadOnly": read_only,
            "Resources": resources,
            "CloudTrailEvent": json.dumps(event),
        }
    )
    trails.deliver(event, resources)


def _identity(principal_arn: str, key: str) -> Json:
    """The element `userIdentity`: docs …/userguide/cloudtrail-event-reference-user-identity.html."""
    if not principal_arn.startswith("arn:"):
        # A service principal, or nobody: an anonymous call.
        return {"type": "AWSService", "invokedBy": principal_arn} if principal_arn else {"type": "AWSAccount"}
    account, _, resource = principal_arn.split(":", 4)[4].partition(":")
    common = {"arn": principal_arn, "accountId": account, "accessKeyId": key}
    if resource == "root":
        return {"type": "Root", "principalId": account, **common}
    kind, _, name = resource.partition("/")
    if kind != "assumed-role":
        user = iam._users.get_scoped(account, None, name.rpartition("/")[2]) or {}
        return {"type": "IAMUser", "principalId": user.get("UserId", ""), **common, "userName": name}
    role_name, _, session = name.partition("/")
    role = _role(principal_arn) or {}
    issuer = {
        "type": "Role",
        "principalId": role.get("RoleId", ""),
        "arn": role.get("Arn", ""),
        "accountId": account,
        "userName": role_name,
    }
    return {
        "type": "AssumedRole",
        "principalId": f"{role.get('RoleId', '')}:{session}",
        **common,
        "sessionContext": {"sessionIssuer": issuer},
    }


def _user_name(identity: Json) -> str:
    """What LookupEvents calls `Username`: a user's name, or a role session's."""
    if identity["type"] == "AssumedRole":
        return str(identity["principalId"]).partition(":")[2]
    return str(identity.get("userName") or identity.get("invokedBy") or identity["type"].lower())


def _role(principal_arn: str) -> Json | None:
    """The role of an assumed-role principal, None for any other."""
    account, _, resource = principal_arn.split(":", 4)[-1].partition(":")
    kind, _, rest = resource.partition("/")
    if kind != "assumed-role":
        return None
    role: Json | None = iam._roles.get_scoped(account, None, rest.partition("/")[0])
    return role


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _lookup_events(request: Json) -> Response:
    """Events that have every attribute asked for, the newest first, a page at a time."""
    wanted = {one["AttributeKey"]: one["AttributeValue"] for one in request.get("LookupAttributes") or []}
    earliest, latest = (float(request.get(name) or default) for name, default in _TIMES)
    found = [
        event
        for event in reversed(list(cloudtrail._get_event_queue()))
        if earliest <= event["EventTime"] <= latest and all(_has(event, *one) for one in wanted.items())
    ]
    start = int(request.get("NextToken") or 0)
    end = start + min(int(request.get("MaxResults") or PAGE), PAGE)
    more = {"NextToken": str(end)} if end < len(found) else {}
    answer: Response = cloudtrail._ok({"Events": found[start:end], **more})
    return answer


_TIMES = (("StartTime", "0"), ("EndTime", "inf"))


def _has(event: Json, attribute: str, value: str) -> bool:
    if attribute in ("ResourceName", "ResourceType"):
        return any(resource.get(attribute) == value for resource in event["Resources"])
    return bool(event.get(attribute, "") == value)
