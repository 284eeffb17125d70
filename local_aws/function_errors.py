"""A function's error is named by its class, as AWS's runtimes name it: Step Functions decides by that name.

MiniStack calls every error Runtime.HandlerError. docs.aws.amazon.com/lambda/latest/dg/python-exceptions.html
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from ministack.core import lambda_runtime
from ministack.services import lambda_svc

from local_aws.wire import Json

UNNAMED = "Runtime.HandlerError"

_name: ContextVar[str | None] = ContextVar("error", default=None)
"""The class of the error with which this thread's invocation ended."""


def install() -> None:
    worker = lambda_runtime.Worker
    invoke, dispatch = worker.invoke, lambda_svc._execute_function_dispatch

    def invoke_worker(self: Any, *arguments: Any, **options: Any) -> Json:
        answer: Json = invoke(self, *arguments, **options)
        _name.set(_class_of(answer) if answer.get("status") == "error" else None)
        return answer

    def execute(function: Json, config: Json, *arguments: Any) -> Any:
        _name.set(None)
        result = dispatch(function, config, *arguments)
        name = _name.get()
        if name and result.get("error") and result["body"].get("errorType") == UNNAMED:
            result["body"]["errorType"] = name
        return result

    worker.invoke, lambda_svc._execute_function_dispatch = invoke_worker, execute


def _class_of(answer: Json) -> str | None:
    """`NotYet`, where the traceback ends in `outcomes.NotYet: it is not there`."""
    message, trace = answer.get("error") or "", (answer.get("trace") or "").rstrip()
    if not trace:
        return None
    last = trace.removesuffix(message.rstrip()).rstrip(": \n").rpartition("\n")[2]
    found = re.fullmatch(r"(?:[\w.]+\.)?(\w+)", last)
    return found[1] if found else None
