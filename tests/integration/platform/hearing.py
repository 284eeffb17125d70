"""Queues that hear what others hear: events of the account's bus, and notifications."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.integration.platform.conftest import Platform


class Heard:
    """A queue, and all that came out of it so far."""

    def __init__(self, platform: Platform, url: str) -> None:
        self._sqs, self._url = platform.aws("sqs"), url
        self._messages: list[dict[str, Any]] = []

    def messages(self) -> list[dict[str, Any]]:
        """Everything that came until now: events, and what SNS wraps notifications in."""
        while found := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                self._messages.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return self._messages

    def events(self, source: str) -> list[dict[str, Any]]:
        return [one for one in self.messages() if one.get("source") == source]


@contextlib.contextmanager
def hearing(
    platform: Platform, name: str, pattern: Mapping[str, Any], topic: str | None = None
) -> Iterator[Heard]:
    """A queue to which every event that matches goes, and every message of a topic."""
    sqs, events, sns = platform.aws("sqs"), platform.aws("events"), platform.aws("sns")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = events.put_rule(Name=name, EventPattern=json.dumps(pattern))["RuleArn"]
    allowed = [
        {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": sender}},
        }
        for service, sender in (("events.amazonaws.com", rule), ("sns.amazonaws.com", topic))
        if sender
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn) if topic else None
    try:
        yield Heard(platform, url)
    finally:
        if subscription:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
        events.remove_targets(Rule=name, Ids=["queue"])
        events.delete_rule(Name=name)
        sqs.delete_queue(QueueUrl=url)
