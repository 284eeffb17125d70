"""Data capture: a share of the invocations of an endpoint, as JSON Lines in S3, written as the model's role.

docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture.html
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import logging
import random
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from local_aws import roles
from local_aws.sagemaker.fleet import Plan
from local_aws.sagemaker.resources import Endpoint
from local_aws.wire import Json

FLUSH_SECONDS = 0.5  # SageMaker gathers for minutes; here a test waits for it

logger = logging.getLogger(__name__)

# Records that are not written yet, by endpoint and variant.
_waiting: dict[tuple[str, str], list[str]] = {}
_tasks: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class Exchange:
    """A successful invocation."""

    content_type: str
    body: bytes
    answer_type: str
    answer: bytes
    inference_id: str | None


def offer(endpoint: Endpoint, plan: Plan, exchange: Exchange) -> None:
    """Keep the exchange, if the endpoint's configuration says so. Never fails and never waits."""
    config = endpoint.config.request.get("DataCaptureConfig") or {}
    if not config.get("EnableCapture") or random.random() * 100 >= config["InitialSamplingPercentage"]:  # noqa: S311 - a sample
        return
    key = (endpoint.arn, plan.variant)
    if key not in _waiting:
        _waiting[key] = []
        task = asyncio.create_task(_flush(key, endpoint, plan, config))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    _waiting[key].append(json.dumps(_record(config, exchange)))


async def _flush(key: tuple[str, str], endpoint: Endpoint, plan: Plan, config: Json) -> None:
    await asyncio.sleep(FLUSH_SECONDS)
    lines = _waiting.pop(key)
    try:
        await asyncio.to_thread(_write, endpoint, plan, config, "".join(f"{line}\n" for line in lines))
    except Exception as error:
        # SageMaker says nothing either; here the server's log does.
        logger.warning("Capture of %s was not written: %s", endpoint.name, error)


def _write(endpoint: Endpoint, plan: Plan, config: Json, text: str) -> None:
    if plan.role is None:
        raise ValueError("there is no ExecutionRoleArn to write it with")
    credentials = plan.role.credentials(plan.vpc)
    parts = urlsplit(config["DestinationS3Uri"])
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%M-%S}-{now.microsecond // 1000:03}-{uuid.uuid4()}.jsonl"
    folder = f"{parts.path.strip('/')}/{endpoint.name}/{plan.variant}/{now:%Y/%m/%d/%H}"
    encryption = (
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
        if config.get("KmsKeyId")
        else {}
    )
    roles.client("s3", endpoint.scope.region, credentials).put_object(
        Bucket=parts.netloc, Key=f"{folder.lstrip('/')}/{name}", Body=text.encode(), **encryption
    )


def _record(config: Json, exchange: Exchange) -> Json:
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    metadata = {
        "eventId": str(uuid.uuid4()),
        "inferenceTime": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if exchange.inference_id is not None:
        metadata["inferenceId"] = exchange.inference_id
    data = {}
    if modes & {"Input", "InputAndOutput"}:
        data["endpointInput"] = _side(config, "INPUT", exchange.content_type, exchange.body)
    if modes & {"Output", "InputAndOutput"}:
        data["endpointOutput"] = _side(config, "OUTPUT", exchange.answer_type, exchange.answer)
    return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}


def _side(config: Json, mode: str, content_type: str, body: bytes) -> Json:
    known = config.get("CaptureContentTypeHeader") or {}
    if content_type in (known.get("JsonContentTypes") or ()):
        encoding, data = "JSON", body.decode("utf-8", "replace")
    elif content_type in (known.get("CsvContentTypes") or ()):
        encoding, data = "CSV", body.decode("utf-8", "replace")
    else:
        encoding, data = "BASE64", base64.b64encode(body).decode()
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}
