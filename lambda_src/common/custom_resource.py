"""A Lambda function as CloudFormation's custom resource: its request, and the one answer that it waits for.

The answer is one PUT of a JSON document to the pre-signed ResponseURL
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html).
"""

import json
import logging
import os
import ssl
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

logger = logging.getLogger()


def respond(event: dict[str, Any], work: Callable[[dict[str, Any]], str]) -> None:
    """Do `work`, and tell CloudFormation how that went: without an answer it waits for an hour.

    Args:
        work: does what the event asks, and returns the resource's physical id; once another is returned,
            CloudFormation asks to delete the old one.
    """
    answer = {
        "Status": "SUCCESS",
        "PhysicalResourceId": event.get("PhysicalResourceId", event["LogicalResourceId"]),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    try:
        answer["PhysicalResourceId"] = work(event)
    except Exception as error:
        logger.exception("%s failed", event["RequestType"])
        # CloudFormation keeps the whole answer under 4 KB.
        answer |= {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:1000]}
    _send(event["ResponseURL"], answer)


def _send(url: str, answer: dict[str, str]) -> None:
    if not url.startswith("https://"):
        raise ValueError("ResponseURL is not an https:// address")
    body = json.dumps(answer).encode()
    # S3 signed the URL for an empty content type, which urllib would otherwise fill in.
    request = Request(url, data=body, method="PUT", headers={"Content-Type": ""})  # noqa: S310 (checked above)
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    with urlopen(request, timeout=30, context=context):  # noqa: S310
        logger.info("answered CloudFormation: %s", answer["Status"])
