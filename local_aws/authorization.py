"""May this caller do this? Every request's check passes here, is recorded, and is completed where MiniStack's
IAM does not say it as AWS does.

Sources: the service authorization reference for AWS Lambda (a request with a qualifier is authorized
against the qualified ARN), for AWS Systems Manager (GetParameters, against every parameter it names) and for
Amazon S3 (condition keys of an upload's encryption); the S3 API reference (what is missing).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_evaluator import EvalResult
from ministack.core.responses import get_account_id, get_region, new_uuid
from ministack.core.router import extract_access_key_id
from ministack.services import s3

from local_aws import audit, registry
from local_aws.patches import replace_everywhere
from local_aws.wire import Json, Response


@dataclass(frozen=True)
class Request:
    """A signed request that its own action allows, as the handlers of its service get it."""

    method: str
    path: str
    headers: Json
    body: bytes
    query: Json
    region: str
    account: str

    def json(self) -> Json:
        """The parameters of a JSON request; none of one that is not, which its service refuses."""
        try:
            parameters: Any = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return parameters if isinstance(parameters, dict) else {}

    @property
    def operation(self) -> str:
        """The operation of a request that names it in a header."""
        return str(self.headers.get("x-amz-target", "")).rpartition(".")[2]


@dataclass(frozen=True)
class Right:
    """What a caller has to be allowed; `context` are condition keys."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


# A request -> the rights that it takes besides its own action
FurtherRights = Callable[[Request], Iterable[Right]]

_further: dict[str, list[FurtherRights]] = {}
_decide = iam_evaluator.enforce


def install() -> None:
    """Record every decision, name the resources, and check the rights beyond the first."""
    global _decide
    _decide = iam_evaluator.enforce
    replace_everywhere(_decide, _enforce)
    registry.refine("lambda", _qualified)
    registry.refine("ssm", _first_parameter)
    takes_also("ssm", _other_parameters)
    takes_also("s3", _sight_of_what_is_missing)
    _leave_unknown_routes_to_the_gateway()
    _say_which_key_encrypts_an_upload()
    _say_whose_role_is_service_linked()
    _tell_the_actions_of_lambda_apart()
    _say_whose_events_are_put()


def takes_also(service: str, rights: FurtherRights) -> None:
    """Require more of a request to `service`, MiniStack's name of it, than its own action."""
    if service not in _further:
        _further[service] = []
        app.SERVICE_HANDLERS[service] = _guarded(service, app.SERVICE_HANDLERS[service])
    _further[service].append(rights)


def _sight_of_what_is_missing(request: Request) -> Iterable[Right]:
    """S3 says only to who may list a bucket that an object is not there; to others, that they are denied.

    docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html and API_HeadObject.html, permissions
    """
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    objects = (s3._buckets.get(bucket) or {}).get("objects")
    asks = request.method in ("GET", "HEAD") and key and not request.query
    if asks and objects is not None and key not in objects:
        yield Right("s3:ListBucket", f"arn:aws:s3:::{bucket}")


def _guarded(service: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        key = extract_access_key_id(headers, query)
        # Without a key it is one of the services that calls another, or reads what is public.
        if key:
            request = Request(method, path, headers, body, query, get_region(), get_account_id())
            for right in [right for further in _further[service] for right in further(request)]:
                refusal = _refusal(key, service, right, headers)
                if refusal is not None:
                    return refusal
        answered: Response = await answer(method, path, headers, body, query)
        return answered

    return handle


def _refusal(key: str, service: str, right: Right, headers: Json) -> Response | None:
    """The answer of `service` to a caller who lacks `right`, None if it has it."""
    region, namespace = get_region(), right.action.partition(":")[0]
    denied = _enforce(key, right.action, namespace, region, right.resource, dict(right.context))
    if not isinstance(denied, EvalResult):
        return None  # authenticated already
    explicit = denied.decision == "Deny"
    refusal: Response = iam_actions.access_denied_response(
        service,
        right.action,
        denied.principal_arn,
        new_uuid(),
        headers=headers,
        resource_arn=right.resource,
        explicit_deny=explicit,
        message=_message(right.action, right.resource, denied),
    )
    return refusal


def _enforce(
    access_key_id: str,
    iam_action: str,
    service: str,
    region: str,
    resource_arn: str = "*",
    service_context: Json | None = None,
) -> Any:
    """MiniStack's `enforce`, with the decision recorded: None, or why not."""
    result = _decide(access_key_id, iam_action, service, region, resource_arn, service_context)
    caller = iam_evaluator.resolve_caller_identity(access_key_id)
    if caller is not None and not isinstance(result, iam_evaluator.AuthError):
        audit.used(caller["userArn"])
    if isinstance(result, EvalResult):
        message = _message(iam_action, resource_arn, result)
        audit.refused(
            result.principal_arn, iam_action, resource_arn, message, key=access_key_id, request=True
        )
    return result


def _message(action: str, resource: str, denied: EvalResult) -> str:
    """A refusal as AWS words it."""
    explicit = denied.decision == "Deny"
    if denied.resource_policy_arn:
        said = f"User: {denied.principal_arn} is not authorized to perform: {action} on resource: {resource}"
        return f"{said} with an explicit deny in a resource-based policy"
    return str(iam_actions.identity_denial_message(action, denied.principal_arn, resource, explicit))


def _leave_unknown_routes_to_the_gateway() -> None:
    """A request that reaches no method needs no signature: it is the gateway that refuses it."""
    known = app._enforce_execute_api

    def enforce_execute_api(
        api_id: str,
        stage: str,
        method: str,
        execute_path: str,
        headers: Json,
        query_params: Json,
        iam_action: str = "execute-api:Invoke",
    ) -> Response | None:
        asked = app._execute_api_authorization_type(api_id, stage, method, execute_path)
        if asked is None and iam_action == "execute-api:Invoke":
            return None
        refusal: Response | None = known(
            api_id, stage, method, execute_path, headers, query_params, iam_action
        )
        return refusal

    app._enforce_execute_api = enforce_execute_api


def _qualified(arn: str, headers: Json, body: bytes, query: Json, region: str, account: str) -> str:
    qualifier = query.get("Qualifier")
    name = qualifier[0] if isinstance(qualifier, list) else qualifier
    # arn:aws:lambda:<region>:<account>:function:<name> has seven parts; an eighth is a qualifier already.
    return f"{arn}:{name}" if name and ":function:" in arn and len(arn.split(":")) == 7 else arn


def _tell_the_actions_of_lambda_apart() -> None:
    """By botocore's routes: MiniStack takes each request about an alias for ListAliases, and so on."""
    known = iam_actions._lambda_action
    iam_actions._BOTOCORE_SERVICE_MAP["lambda"] = ["lambda"]
    called_otherwise = {"Invoke": "InvokeFunction", "InvokeWithResponseStream": "InvokeFunction"}

    def action(method: str, path: str) -> str | None:
        operation: str | None = iam_actions._match_rest_action("lambda", method, path, {})
        if operation:
            return called_otherwise.get(operation, operation)
        answer: str | None = known(method, path)
        return answer

    iam_actions._lambda_action = action


def _say_whose_events_are_put() -> None:
    """PutEvents: `events:source` for conditions, which must hold for every entry."""
    known = iam_actions.request_tag_context

    def request_tag_context(service: str, action: str, body: bytes, *arguments: Any) -> Json:
        context: Json = known(service, action, body, *arguments)
        if action == "events:PutEvents":
            entries = json.loads(body).get("Entries") or []
            # AWS asks once for each entry; the sources of one request differ hardly ever.
            sources = {entry.get("Source", "") for entry in entries}
            context = {**context, "events:source": sources.pop() if len(sources) == 1 else ""}
        return context

    iam_actions.request_tag_context = request_tag_context


def _first_parameter(arn: str, headers: Json, body: bytes, query: Json, region: str, account: str) -> str:
    return next(iter(_parameters(headers, body, region, account)), arn)


def _other_parameters(request: Request) -> list[Right]:
    arns = _parameters(request.headers, request.body, request.region, request.account)
    return [Right("ssm:GetParameters", arn) for arn in arns[1:]]


def _parameters(headers: Json, body: bytes, region: str, account: str) -> list[str]:
    """The ARNs of the parameters that a GetParameters request names; none for any other request."""
    if str(headers.get("x-amz-target", "")) != "AmazonSSM.GetParameters":
        return []
    try:
        names = json.loads(body)["Names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [f"arn:aws:ssm:{region}:{account}:parameter/{str(name).lstrip('/')}" for name in names]


def _say_which_key_encrypts_an_upload() -> None:
    """The condition key of the KMS key that an upload names; MiniStack has that of the algorithm only."""
    known = iam_actions.s3_service_context
    header = "x-amz-server-side-encryption-aws-kms-key-id"

    def s3_service_context(
        action: str, query_params: Json | None, path: str = "", headers: Json | None = None
    ) -> Json:
        context: Json = known(action, query_params, path, headers)
        key = (headers or {}).get(header)
        return {**context, f"s3:{header}": key} if key and action == "s3:PutObject" else context

    iam_actions.s3_service_context = s3_service_context


def _say_whose_role_is_service_linked() -> None:
    """The resource and the condition key of CreateServiceLinkedRole; MiniStack has neither.

    docs.aws.amazon.com/IAM/latest/UserGuide/using-service-linked-roles.html#service-linked-role-permissions
    """
    known = iam_actions.request_tag_context

    def service(body: bytes) -> str:
        form = parse_qs(body.decode("latin-1"))
        named = form.get("AWSServiceName") if form.get("Action") == ["CreateServiceLinkedRole"] else None
        return named[0] if named else ""

    def resource(arn: str, headers: Json, body: bytes, query: Json, region: str, account: str) -> str:
        named = service(body)
        return f"arn:aws:iam::{account}:role/aws-service-role/{named}/AWSServiceRole" if named else arn

    def context(name: str, action: str, body: bytes, parameters: Json) -> Json:
        found: Json = known(name, action, body, parameters)
        named = service(body) if name == "iam" else ""
        return {**found, "iam:AWSServiceName": named} if named else found

    registry.refine("iam", resource)
    iam_actions.request_tag_context = context
