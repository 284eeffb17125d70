"""A service that calls another in its own name needs the target's policy, and that of the key that encrypts.

Sources: docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html and
AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html.
"""

from __future__ import annotations

from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import cloudwatch, eventbridge, kms, lambda_svc, sns

from local_aws import audit, roles
from local_aws.enforcement import encryption
from local_aws.wire import Json


def install() -> None:
    _events_to_functions()
    _alarms_to_topics()


def _allowed(service: str, policy: Any, action: str, target: str, context: Json) -> bool:
    if roles.service_allowed(policy, service, action, target, account=get_account_id(), context=context):
        return True
    message = f"{service} is not authorized to perform: {action} on resource: {target}"
    audit.refused(service, action, target, message)
    return False


def _events_to_functions() -> None:
    """EventBridge invokes a function only if the function's policy lets it, for this rule."""
    invoke_target = eventbridge._invoke_target

    def invoke(target: Json, event: Any, rule: Json, view: Any = None) -> Any:
        arn = str(target.get("Arn", ""))
        found = lambda_svc.function_policy_for_arn(arn) if arn.split(":")[2:3] == ["lambda"] else None
        context = {"aws:SourceArn": rule.get("Arn", "")}
        if found is not None and not _allowed(
            "events.amazonaws.com", found[0], "lambda:InvokeFunction", arn, context
        ):
            return None
        return invoke_target(target, event, rule, view)

    eventbridge._invoke_target = invoke


def _alarms_to_topics() -> None:
    """CloudWatch publishes an alarm only if the policies of the topic and of its key let it."""
    dispatch = cloudwatch._dispatch_alarm_actions

    def dispatch_alarm_actions(alarm: Json, *arguments: Any) -> Any:
        # A topic's default policy admits whatever acts for its owner.
        context = {"aws:SourceArn": alarm.get("AlarmArn", ""), "aws:SourceOwner": get_account_id()}
        kept = {
            name: [action for action in alarm.get(name) or [] if _may_publish(action, context)]
            for name in ("AlarmActions", "OKActions", "InsufficientDataActions")
        }
        return dispatch({**alarm, **kept}, *arguments)

    cloudwatch._dispatch_alarm_actions = dispatch_alarm_actions


def _may_publish(action: str, context: Json) -> bool:
    topic = sns._topics.get(action)
    if topic is None:
        return True
    service, policy = "cloudwatch.amazonaws.com", topic.get("attributes", {}).get("Policy")
    if policy and not _allowed(service, policy, "sns:Publish", action, context):
        return False
    return all(
        _allowed(
            service,
            (kms._resolve_key(right.resource) or {}).get("Policy"),
            right.action,
            right.resource,
            {**context, **right.context},
        )
        for right in encryption.topic_rights(action)
    )
