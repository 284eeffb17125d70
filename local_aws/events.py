"""EventBridge's deliveries as AWS makes them: asynchronous, tried again, and never silently lost.

MiniStack runs a rule's function once and forgets how that went. Here the function's own retries and
dead-letter queue apply, and what cannot be delivered at all goes to the target's queue.
docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-event-delivery.html
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch, eventbridge, lambda_svc, sqs

from local_aws.wire import Json

MINUTE_VARIABLE = "LOCAL_AWS_MINUTE"
"""Seconds that a minute of a `rate(…)` schedule lasts; 60 unless tests are in a hurry."""

TICK = 10.0  # seconds between two looks at the schedules, at most


def install() -> None:
    _hurry_schedules(float(os.environ.get(MINUTE_VARIABLE, "60")))
    eventbridge._dispatch_to_lambda = _invoke
    known = eventbridge._invoke_target

    def invoke_target(target: Json, event: Json, rule: Json, view: Any = None) -> None:
        function = str(target.get("Arn", ""))
        if ":lambda:" in function and lambda_svc._get_func_record_for_ref(function)[0] is None:
            undelivered(target, event, rule, "NO_RESOURCE", f"The function {function} does not exist.")
            return
        known(target, event, rule, view)

    eventbridge._invoke_target = invoke_target


def undelivered(target: Json, event: Json, rule: Json, code: str, message: str) -> None:
    """Send an event to the dead-letter queue of the target that did not get it, if it has one."""
    queue = sqs._queue_by_arn((target.get("DeadLetterConfig") or {}).get("Arn", ""))
    if queue is None:
        return
    attributes = {
        "RULE_ARN": rule.get("Arn", ""),
        "TARGET_ARN": target.get("Arn", ""),
        "ERROR_CODE": code,
        "ERROR_MESSAGE": message,
    }
    request = {
        "QueueUrl": queue["url"],
        "MessageBody": json.dumps(eventbridge._pattern_event_view(event).event_with_detail()),
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }
    sqs._act_send_message(request, queue["url"])


def publish_queue_metrics() -> None:
    """AWS/SQS, which MiniStack leaves out: what lies in every queue now, and for how long."""
    for (account, region, _), queue in list(sqs._queues._data.items()):
        with responses.request_scope(account, region):
            sqs._refresh_counts(queue)
            waiting = [message for message in queue["messages"] if message["visible_at"] <= time.time()]
            oldest = min((message["sent_at"] for message in waiting), default=time.time())
            for name, value, unit in (
                ("ApproximateNumberOfMessagesVisible", len(waiting), "Count"),
                ("ApproximateAgeOfOldestMessage", time.time() - oldest, "Seconds"),
            ):
                cloudwatch.record_metric("AWS/SQS", name, value, unit, {"QueueName": queue["name"]})


def _invoke(arn: str, payload: str) -> None:
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    lambda_svc.invoke_async_with_retry(
        lambda_svc._execution_record_for_config(function, config), json.loads(payload)
    )


def _hurry_schedules(minute: float) -> None:
    known = eventbridge._parse_rate_seconds

    def parse_rate_seconds(expression: str) -> float | None:
        seconds = known(expression)
        return None if seconds is None else seconds * minute / 60

    eventbridge._parse_rate_seconds = parse_rate_seconds
    eventbridge._SCHEDULER_TICK_INTERVAL = min(TICK, minute)
