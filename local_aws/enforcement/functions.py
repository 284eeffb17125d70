"""What Lambda does as a function's execution role: join the VPC, write logs and traces, deliver what failed.

Sources: docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html (permissions), services-xray.html,
lambda-intro-execution-role.html and invocation-async-retain-records.html. Lambda asks for the rights on the
VPC when the function is made; the other calls it makes as it goes, and a function works on without its logs
and traces.
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ministack.core import lambda_runtime, responses
from ministack.core.responses import error_response_json, get_account_id, get_region
from ministack.services import cloudwatch_logs, lambda_svc

from local_aws import roles, xray
from local_aws.authorization import Right
from local_aws.cloudformation import extend
from local_aws.enforcement import encryption, network
from local_aws.patches import replace_everywhere
from local_aws.wire import Json

logger = logging.getLogger("functions")

PRINCIPAL = "lambda.amazonaws.com"

# Properties that MiniStack's CloudFormation leaves out of a function's configuration.
_KEPT = ("VpcConfig", "DeadLetterConfig")


def install() -> None:
    _check_roles()
    _place_workers()
    _write_logs_as_the_role()
    _trace_as_the_role()
    _run_daemon()
    _deliver_failures_as_the_role()


def _check_roles() -> None:
    """The role must be Lambda's to assume, and be allowed what its VPC takes, when a function is made."""
    create, update = lambda_svc._create_function, lambda_svc._update_config

    def create_function(data: Json) -> Any:
        problem = _role_problem(data.get("FunctionName", ""), data.get("Role", ""), data.get("VpcConfig"))
        return _invalid(problem) if problem else create(data)

    def update_config(name: str, data: Json) -> Any:
        config = (lambda_svc._functions.get(name) or {}).get("config") or {}
        problem = None
        if config and ("Role" in data or "VpcConfig" in data):
            merged = {**config, **data}
            problem = _role_problem(name, merged.get("Role", ""), merged.get("VpcConfig"))
        return _invalid(problem) if problem else update(name, data)

    lambda_svc._create_function, lambda_svc._update_config = create_function, update_config

    def check(properties: Json) -> None:
        name = properties.get("FunctionName", "function")
        problem = _role_problem(name, properties.get("Role", ""), properties.get("VpcConfig"))
        if problem:
            raise ValueError(problem)

    def keep(physical_id: str, properties: Json) -> None:
        config = lambda_svc._functions[physical_id]["config"]
        for name in _KEPT:
            config.pop(name, None)
            if properties.get(name):
                config[name] = properties[name]
        if properties.get("VpcConfig"):
            config["VpcConfig"] = lambda_svc._vpc_config_with_id(properties["VpcConfig"])

    extend("AWS::Lambda::Function", check=check, after=keep)


def _role_problem(function: str, role_arn: str, vpc_config: Json | None) -> str | None:
    try:
        roles.check_trust(get_account_id(), role_arn, PRINCIPAL)
    except roles.NotAssumable:
        return "The role defined for the function cannot be assumed by Lambda."
    if not (vpc_config or {}).get("SubnetIds"):
        return None
    missing = network.missing_right(role_arn, function, network.LAMBDA_RIGHTS)
    said = f"The provided execution role does not have permissions to call {missing} on EC2"
    return said if missing else None


def _invalid(message: str) -> Any:
    return error_response_json("InvalidParameterValueException", message, 400)


def _place_workers() -> None:
    """A worker's calls come from its function's subnets."""
    known = lambda_runtime.execution_credentials

    def execution_credentials(config: Json) -> dict[str, str]:
        variables: dict[str, str] = known(config)
        network.put(variables["AWS_ACCESS_KEY_ID"], config.get("VpcConfig"))
        return variables

    replace_everywhere(known, execution_credentials)


def _may(config: Json, action: str, resource: str) -> bool:
    return roles.refusal(config["Role"], config["FunctionName"], action, resource) is None


def _write_logs_as_the_role() -> None:
    known = lambda_svc._emit_lambda_logs

    def emit(function: Json, *arguments: Any, **options: Any) -> None:
        config = function.get("config") or function
        name = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        group = f"arn:aws:logs:{get_region()}:{get_account_id()}:log-group:{name}"
        stream = f"{group}:log-stream:{time.strftime('%Y/%m/%d')}/[{config.get('Version', '$LATEST')}]"
        if name not in cloudwatch_logs._log_groups and not _may(
            config, "logs:CreateLogGroup", f"{group}:log-stream:"
        ):
            return
        if _may(config, "logs:CreateLogStream", stream) and _may(config, "logs:PutLogEvents", stream):
            known(function, *arguments, **options)

    lambda_svc._emit_lambda_logs = emit


# The traces that were begun lately, and the function of each: the daemon is told a trace's id only.
_traced: dict[str, Json] = {}
TRACED = 1000

# The trace headers that were made for the invocation that is under way.
_headers: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("headers", default=None)


def _trace_as_the_role() -> None:
    """Every invocation of a function with active tracing is a segment, sent as its role."""
    make_header, execute = lambda_svc._xray_trace_id_for_invocation, lambda_svc._execute_function_dispatch

    def trace_id_for_invocation(config: Json, inbound: str | None = None) -> str | None:
        header: str | None = make_header(config, inbound)
        made = _headers.get()
        if header and made is not None:
            made.append(header)
            _traced[_parse(header).get("Root", "")] = config
            for oldest in list(_traced)[:-TRACED]:
                _traced.pop(oldest, None)
        return header

    def execute_function(function: Json, config: Json, event: Any, request_id: str, started: float) -> Any:
        if (config.get("TracingConfig") or {}).get("Mode") != "Active":
            return execute(function, config, event, request_id, started)
        token = _headers.set([])
        try:
            result = execute(function, config, event, request_id, started)
            made = _headers.get() or []
        finally:
            _headers.reset(token)
        failed = isinstance(result, dict) and bool(result.get("error"))
        _send_segment(config, made[0] if made else "", request_id, started, failed)
        return result

    lambda_svc._xray_trace_id_for_invocation = trace_id_for_invocation
    lambda_svc._execute_function_dispatch = execute_function


def _parse(header: str) -> dict[str, str]:
    """`Root=…;Parent=…;Sampled=1`"""
    return dict(part.split("=", 1) for part in header.split(";") if "=" in part)


def _send_segment(config: Json, header: str, request_id: str, started: float, failed: bool) -> None:
    given = _parse(header)
    if _may(config, "xray:PutTraceSegments", "*"):
        segment = {
            "name": config["FunctionName"],
            "id": secrets.token_hex(8),
            "trace_id": given.get("Root") or xray.new_trace_id(),
            "start_time": started,
            "end_time": time.time(),
            "origin": "AWS::Lambda::Function",
            "resource_arn": config["FunctionArn"],
            "fault": failed,
            "aws": {"request_id": request_id, "account_id": responses.get_account_id()},
        }
        xray.put({**segment, "parent_id": given["Parent"]} if "Parent" in given else segment)
    # The daemon also reports on itself.
    _may(config, "xray:PutTelemetryRecords", "*")


def _run_daemon() -> None:
    """The daemon beside every function: what the code itself traces comes as datagrams, and is sent on as its
    role. docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    # Functions inherit it, as they find it on Lambda.
    os.environ["AWS_XRAY_DAEMON_ADDRESS"] = f"127.0.0.1:{listener.getsockname()[1]}"
    threading.Thread(target=_forward, args=(listener,), daemon=True).start()


def _forward(listener: socket.socket) -> None:
    while True:
        header, _, text = listener.recv(65536).partition(b"\n")
        try:
            document = json.loads(text)
            config = _traced[document["trace_id"]]
        except (ValueError, KeyError, TypeError):
            logger.warning("not a segment of a traced invocation: %r", header)
            continue
        account, region = config["FunctionArn"].split(":")[4], config["FunctionArn"].split(":")[3]
        with responses.request_scope(account, region):
            if _may(config, "xray:PutTraceSegments", "*"):
                xray.put(document)


# The rights on the target's key that a delivery takes.
_KEY_RIGHTS: dict[str, Callable[[str], Iterable[Right]]] = {
    "sqs": encryption.queue_rights,
    "sns": encryption.topic_rights,
}
_DELIVERIES = {"sqs": "sqs:SendMessage", "sns": "sns:Publish", "lambda": "lambda:InvokeFunction"}


def _deliver_failures_as_the_role() -> None:
    known = lambda_svc._route_async_failure

    def route(target: str, name: str, event: Any, result: Any) -> None:
        config = (lambda_svc._functions.get(name) or {}).get("config") or {}
        service = target.split(":")[2]
        allowed = _may(config, _DELIVERIES.get(service, f"{service}:*"), target)
        key_rights = _KEY_RIGHTS.get(service)
        for right in key_rights(target) if key_rights else ():
            if roles.refusal(config["Role"], name, right.action, right.resource, right.context):
                allowed = False
        if allowed:
            known(target, name, event, result)

    lambda_svc._route_async_failure = route
