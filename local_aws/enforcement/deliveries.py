"""A service that calls another in its own name needs the target's policy, and that of the key that encrypts.

Sources: docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html and
AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import cloudwatch, eventbridge, kms, lambda_svc, sns, sqs

from local_aws import audit, events, roles
from local_aws.authorization import Right
from local_aws.enforcement import encryption
from local_aws.wire import Json


def install() -> None:
    _events_to_functions()
    _events_to_queues()
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
            events.undelivered(
                target, event, rule, "NO_PERMISSIONS", f"The policy of {arn} refuses the rule."
            )
            return None
        return invoke_target(target, event, rule, view)

    eventbridge._invoke_target = invoke


def _events_to_queues() -> None:
    """What EventBridge could not deliver reaches a dead-letter queue only if the queue and its key let it."""
    undelivered = events.undelivered

    def report(target: Json, event: Json, rule: Json, code: str, message: str) -> None:
        queue = (target.get("DeadLetterConfig") or {}).get("Arn", "")
        found = sqs.queue_policy_for_arn(queue)
        service, context = "events.amazonaws.com", {"aws:SourceArn": rule.get("Arn", "")}
        if found and not (
            _allowed(service, found[0], "sqs:SendMessage", queue, context)
            and _keys_allow(service, encryption.queue_rights(queue), context)
        ):
            return
        undelivered(target, event, rule, code, message)

    events.undelivered = report


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
    return _keys_allow(service, encryption.topic_rights(action), context)


def _keys_allow(service: str, rights: Iterable[Right], context: Json) -> bool:
    return all(
        _allowed(
            service,
            (kms._resolve_key(right.resource) or {}).get("Policy"),
            right.action,
            right.resource,
            {**context, **right.context},
        )
        for right in rights
    )
