"""Which resources a request names, where MiniStack's IAM does not say it as AWS does.

Sources: the service authorization reference for AWS Lambda (a request with a qualifier is authorized
against the qualified ARN), for AWS Systems Manager (GetParameters, against every parameter it names) and for
Amazon S3 (condition keys of an upload's encryption).
"""

from __future__ import annotations

import json

from ministack import app
from ministack.core import iam_actions
from ministack.core.iam_evaluator import EvalResult, enforce
from ministack.core.responses import get_account_id, get_region, new_uuid
from ministack.core.router import extract_access_key_id

from local_aws import registry
from local_aws.wire import Json, Response


def install() -> None:
    """Name the resources, and check those beyond the first."""
    registry.refine("lambda", _qualified)
    registry.refine("ssm", _first_parameter)
    answer_ssm = app.SERVICE_HANDLERS["ssm"]

    async def handle_ssm(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        if app.AUTH:
            for arn in _parameters(headers, body, get_region(), get_account_id())[1:]:
                key = extract_access_key_id(headers, query)
                denied = enforce(key, "ssm:GetParameters", "ssm", get_region(), resource_arn=arn)
                if isinstance(denied, EvalResult):
                    refusal: Response = iam_actions.access_denied_response(
                        "ssm",
                        "ssm:GetParameters",
                        denied.principal_arn,
                        new_uuid(),
                        headers=headers,
                        resource_arn=arn,
                        explicit_deny=denied.decision == "Deny",
                    )
                    return refusal
        answer: Response = await answer_ssm(method, path, headers, body, query)
        return answer

    app.SERVICE_HANDLERS["ssm"] = handle_ssm
    _leave_unknown_routes_to_the_gateway()
    _say_which_key_encrypts_an_upload()


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


def _first_parameter(arn: str, headers: Json, body: bytes, query: Json, region: str, account: str) -> str:
    return next(iter(_parameters(headers, body, region, account)), arn)


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
