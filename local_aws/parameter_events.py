"""Parameter Store tells EventBridge of every change, as it does on AWS; MiniStack's keeps it to itself.

https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-cwe.html
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from ministack import app
from ministack.core.responses import get_account_id, get_region, new_uuid
from ministack.services import eventbridge

from local_aws.wire import Json, Response


def install() -> None:
    """Send `Parameter Store Change` for what PutParameter, DeleteParameter and DeleteParameters changed."""
    answer_ssm = app.SERVICE_HANDLERS["ssm"]

    async def handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        answer: Response = await answer_ssm(method, path, headers, body, query)
        operation = str(headers.get("x-amz-target", "")).rpartition(".")[2]
        if answer[0] == 200:
            for name, change in _changes(operation, body, answer[2]):
                await asyncio.to_thread(eventbridge._dispatch_event, _event(name, change))
        return answer

    app.SERVICE_HANDLERS["ssm"] = handle


def _changes(operation: str, request: bytes, answer: str | bytes) -> list[tuple[str, str]]:
    """The parameters that a request changed, and how."""
    if operation == "PutParameter":
        change = "Create" if json.loads(answer)["Version"] == 1 else "Update"
        return [(json.loads(request)["Name"], change)]
    if operation == "DeleteParameter":
        return [(json.loads(request)["Name"], "Delete")]
    if operation == "DeleteParameters":
        return [(name, "Delete") for name in json.loads(answer)["DeletedParameters"]]
    return []


def _event(name: str, change: str) -> Json:
    return {
        "EventId": new_uuid(),
        "Source": "aws.ssm",
        "DetailType": "Parameter Store Change",
        "Detail": json.dumps({"name": name, "operation": change}),
        "EventBusName": "default",
        "Time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Resources": [f"arn:aws:ssm:{get_region()}:{get_account_id()}:parameter/{name.lstrip('/')}"],
        "Account": get_account_id(),
        "Region": get_region(),
    }
