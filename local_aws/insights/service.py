"""StartQuery, GetQueryResults, StopQuery and DescribeQueries, in place of MiniStack's.

A query is run when it is started, so it is complete when its results are first asked for.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from ministack.core.responses import AccountRegionScopedDict, get_account_id
from ministack.services import cloudwatch_logs

from local_aws import registry
from local_aws.insights import engine, language
from local_aws.wire import Json, ServiceError

MOST_GROUPS = 50

_queries = AccountRegionScopedDict()  # query id -> how it was asked, and the Result


def install() -> None:
    registry.extend(
        "logs",
        {
            "StartQuery": _start,
            "GetQueryResults": _results,
            "StopQuery": _stop,
            "DescribeQueries": _describe,
        },
    )


def _start(request: Json) -> Json:
    if request.get("queryLanguage", "CWLI") != "CWLI":
        raise ServiceError(
            "InvalidParameterException",
            f"The embedded AWS runs queries in CWLI, not in {request['queryLanguage']}.",
        )
    if request["startTime"] > request["endTime"]:
        raise ServiceError("InvalidParameterException", "startTime must not be after endTime.")
    groups = _groups(request)
    try:
        commands = language.parse(request["queryString"])
    except language.MalformedQuery as error:
        location = {"startCharOffset": error.start, "endCharOffset": error.end}
        details = {"queryCompileError": {"location": location, "message": str(error)}}
        raise ServiceError("MalformedQueryException", str(error), members=details) from error
    first, last = request["startTime"] * 1000, request["endTime"] * 1000 + 999
    result = engine.run(commands, _events(groups, first, last), request.get("limit"))
    identifier = str(uuid.uuid4())
    _queries[identifier] = {"request": request, "groups": groups, "created": time.time(), "result": result}
    return {"queryId": identifier}


def _groups(request: Json) -> list[str]:
    """The log groups to look at: named in exactly one way, all of them there."""
    ways = [
        request[way] for way in ("logGroupName", "logGroupNames", "logGroupIdentifiers") if way in request
    ]
    if len(ways) != 1:
        raise ServiceError(
            "InvalidParameterException",
            "Exactly one of logGroupName, logGroupNames and logGroupIdentifiers is needed.",
        )
    given = [ways[0]] if isinstance(ways[0], str) else ways[0]
    names = [each.partition(":log-group:")[2].removesuffix(":*") or each for each in given]
    if not 1 <= len(names) <= MOST_GROUPS:
        raise ServiceError("InvalidParameterException", f"A query takes 1 to {MOST_GROUPS} log groups.")
    for name in names:
        if name not in cloudwatch_logs._log_groups:
            raise ServiceError(
                "ResourceNotFoundException", f"Log group '{name}' does not exist for account ID "
                f"'{get_account_id()}'."
            )  # fmt: skip
    return list(dict.fromkeys(names))


def _events(groups: list[str], first: int, last: int) -> Iterator[engine.Event]:
    for group in groups:
        log = f"{get_account_id()}:{group}"
        for stream, content in list(cloudwatch_logs._log_groups[group]["streams"].items()):
            for event in list(content["events"]):
                if first <= event["timestamp"] <= last:
                    pointer = event.setdefault("eventId", str(uuid.uuid4()))
                    yield engine.Event(
                        event["timestamp"], event["message"], log, stream, event["ingestionTime"], pointer
                    )


def _asked(request: Json) -> Json:
    query: Json | None = _queries.get(request["queryId"])
    if query is None:
        raise ServiceError("ResourceNotFoundException", f"The query {request['queryId']} does not exist.")
    return query


def _results(request: Json) -> Json:
    result: engine.Result = _asked(request)["result"]
    return {
        "queryLanguage": "CWLI",
        "status": "Complete",
        "results": [[{"field": name, "value": value} for name, value in row.items()] for row in result.rows],
        "statistics": {
            "recordsMatched": float(result.matched),
            "recordsScanned": float(result.scanned),
            "bytesScanned": float(result.bytes_scanned),
        },
    }


def _stop(request: Json) -> Json:
    _asked(request)
    # As on AWS, what has ended cannot be stopped.
    raise ServiceError(
        "InvalidParameterException", "Cannot stop a query that has already completed or been stopped."
    )


def _describe(request: Json) -> Json:
    wanted = request.get("logGroupName")
    return {
        "queries": [
            {
                "queryLanguage": "CWLI",
                "queryId": identifier,
                "queryString": query["request"]["queryString"],
                "status": "Complete",
                "createTime": int(query["created"] * 1000),
                "logGroupName": query["groups"][0],
            }
            for identifier, query in _queries.items()
            if wanted in (None, *query["groups"]) and request.get("status", "Complete") == "Complete"
        ]
    }
