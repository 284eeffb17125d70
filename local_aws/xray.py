"""A minimal X-Ray: it keeps the segments that services send, and finds traces again.

docs.aws.amazon.com/xray/latest/api/Welcome.html and devguide/xray-api-segmentdocuments.html
"""

from __future__ import annotations

import json
import time
from typing import Any

from ministack.core import responses
from ministack.core.responses import AccountRegionScopedDict

from local_aws import registry
from local_aws.wire import Json, Response, ServiceError

KEPT = 10_000  # traces, the newest

_traces = AccountRegionScopedDict()  # trace id -> {segment id: document}


def install() -> None:
    registry.register(
        registry.Service(
            name="xray",
            handler=_handle,
            target_prefix="AWSXRay.",
            host_patterns=(r"^xray\.",),
            rest_models=("xray",),
            # X-Ray's actions on traces know no resources.
            resource_arn=lambda operation, parameters, path, region, account: "*",
        )
    )


def put(document: Json) -> None:
    """Keep a segment; one that is sent again replaces what was sent before."""
    trace = _traces.get(document["trace_id"]) or {}
    _traces[document["trace_id"]] = {**trace, document["id"]: document}
    for name in list(_traces)[:-KEPT]:
        _traces.pop(name, None)


async def _handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
    operation = _OPERATIONS.get(path)
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return _error("InvalidRequestException", "The request is not JSON.")
    if operation is None or method != "POST":
        return _error(
            "UnknownOperationException",
            f"{method} {path} is not an operation of X-Ray that the embedded AWS serves: "
            "docs/embedded-aws.md lists those it does.",
        )
    try:
        return 200, {"Content-Type": "application/json"}, json.dumps(operation(request)).encode()
    except ServiceError as error:
        return _error(error.code, error.message)


def _error(code: str, message: str) -> Response:
    answer = json.dumps({"Message": message}).encode()
    return 400, {"Content-Type": "application/json", "x-amzn-ErrorType": code}, answer


def _put_trace_segments(request: Json) -> Json:
    unprocessed = []
    for text in request.get("TraceSegmentDocuments") or []:
        try:
            document = json.loads(text)
            missing = [name for name in ("name", "id", "trace_id", "start_time") if name not in document]
        except (ValueError, TypeError):
            document, missing = {}, ["a JSON object"]
        if missing:
            problem = f"Invalid segment: {', '.join(missing)} is missing."
            unprocessed.append({"Id": document.get("id"), "ErrorCode": "MissingField", "Message": problem})
        else:
            put(document)
    return {"UnprocessedTraceSegments": unprocessed}


def _get_trace_summaries(request: Json) -> Json:
    if request.get("FilterExpression"):
        # Refused, so that no one takes all traces for those that were asked for.
        raise ServiceError(
            "InvalidRequestException", "The embedded AWS knows no filter expressions of X-Ray: leave it out."
        )
    start, end = float(request["StartTime"]), float(request["EndTime"])
    summaries = []
    for identifier, segments in _traces.items():
        first = min(segment["start_time"] for segment in segments.values())
        last = max(segment.get("end_time", time.time()) for segment in segments.values())
        if start <= first <= end:
            summaries.append(
                {
                    "Id": identifier,
                    "StartTime": first,
                    "Duration": last - first,
                    "HasError": any(one.get("error", False) for one in segments.values()),
                    "HasFault": any(one.get("fault", False) for one in segments.values()),
                    "IsPartial": False,
                    "ServiceIds": [
                        {"Name": one["name"], "Type": one.get("origin")} for one in segments.values()
                    ],
                    "Annotations": {
                        name: [{"AnnotationValue": _annotation(value)}]
                        for one in segments.values()
                        for name, value in (one.get("annotations") or {}).items()
                    },
                }
            )
    return {
        "TraceSummaries": summaries,
        "TracesProcessedCount": len(summaries),
        "ApproximateTime": time.time(),
    }


def _annotation(value: Any) -> Json:
    kinds = {bool: "BooleanValue", int: "NumberValue", float: "NumberValue"}
    return {kinds.get(type(value), "StringValue"): value}


def _batch_get_traces(request: Json) -> Json:
    found, missing = [], []
    for identifier in request["TraceIds"]:
        segments = _traces.get(identifier)
        if segments is None:
            missing.append(identifier)
            continue
        documents = [{"Id": name, "Document": json.dumps(one)} for name, one in segments.items()]
        found.append({"Id": identifier, "LimitExceeded": False, "Segments": documents})
    return {"Traces": found, "UnprocessedTraceIds": missing}


_OPERATIONS = {
    "/TraceSegments": _put_trace_segments,
    # What the daemon says about itself: nobody can read it.
    "/TelemetryRecords": lambda request: {},
    "/TraceSummaries": _get_trace_summaries,
    "/Traces": _batch_get_traces,
}


def new_trace_id() -> str:
    return f"1-{int(time.time()):08x}-{responses.new_uuid().replace('-', '')[:24]}"
