"""Whether API Gateway may call a backend: by the integration's role, or by the function's own policy."""

from ministack import app as ministack
from ministack.core.responses import get_region
from ministack.services import apigateway_v1, lambda_svc

from local_aws import roles
from local_aws.gateway.exchange import Exchange, misconfigured

PRINCIPAL = "apigateway.amazonaws.com"


def role_allows(exchange: Exchange, role_arn: str, action: str, resource: str) -> bool:
    """Whether the integration's role allows `action` on `resource`.

    Raises Fault API_CONFIGURATION_ERROR where API Gateway may not assume the role: that call fails on AWS
    before the backend's does.
    """
    if not ministack.AUTH:
        return True
    try:
        roles.check_trust(role_arn.split(":")[4], role_arn, PRINCIPAL, context=_source(exchange))
    except roles.NotAssumable as error:
        raise misconfigured(
            f"API Gateway does not have permission to assume the provided role {role_arn}"
        ) from error
    return roles.refusal(role_arn, "BackplaneAssumeRoleSession", action, resource) is None


def may_log(account: str, group: str, stream: str) -> bool:
    """Whether the account's role for API Gateway's logs lets it write there; it must have been set once.

    docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """
    role = str((apigateway_v1._account_settings.get("settings") or {}).get("cloudwatchRoleArn") or "")
    arn = f"arn:aws:logs:{get_region()}:{account}:log-group:{group}:log-stream:{stream}"
    return bool(role) and all(
        roles.refusal(role, "ApiGatewayLogs", action, arn) is None
        for action in ("logs:CreateLogStream", "logs:PutLogEvents")
    )


def function_allows(exchange: Exchange, function_arn: str) -> bool:
    """Whether the function's own policy lets API Gateway invoke it for this method."""
    if not ministack.AUTH:
        return True
    found = lambda_svc.function_policy_for_arn(function_arn)
    if found is None:
        return False
    return roles.service_allowed(
        found[0],
        PRINCIPAL,
        "lambda:InvokeFunction",
        function_arn,
        account=exchange.account,
        context=_source(exchange),
    )


def _source(exchange: Exchange) -> dict[str, str]:
    """Whose request API Gateway acts on, against a confused deputy."""
    return {"aws:sourcearn": exchange.method_arn, "aws:sourceaccount": exchange.account}
