"""What a request leaves behind: its line in the stage's access log, and the method's metrics."""

import hashlib
import json
import logging
import re
import time

from ministack.core.responses import request_scope
from ministack.services import cloudwatch, cloudwatch_logs

from local_aws.gateway import access, faults
from local_aws.gateway.exchange import Answer, Exchange, Json, lookup

logger = logging.getLogger("local_aws.gateway")

_VARIABLE = re.compile(r"\$\{?context\.([A-Za-z]\w*(?:\.[\w:-]+)*)\}?")


def write(exchange: Exchange, answer: Answer) -> None:
    """Record one request. A missing log group is said in the server's log; the client never notices."""
    latency_ms = exchange.elapsed_ms()
    _write_access_log(exchange, answer, latency_ms)
    _write_metrics(exchange, answer.status, latency_ms)


def _write_access_log(exchange: Exchange, answer: Answer, latency_ms: int) -> None:
    settings = exchange.stage.get("accessLogSettings") or {}
    destination, line_format = settings.get("destinationArn"), settings.get("format")
    if not destination or not line_format:
        return
    context = _context(exchange, answer, latency_ms)
    line = _VARIABLE.sub(lambda found: lookup(context, found[1]) or "-", line_format)
    _, _, _, region, account, _, group, *_ = destination.split(":")
    stream = hashlib.md5(
        f"{exchange.api['id']}/{exchange.stage['stageName']}".encode(), usedforsecurity=False
    ).hexdigest()
    with request_scope(account, region):
        if group not in cloudwatch_logs._log_groups:
            logger.error("access log of %s: there is no log group %s", exchange.api["id"], group)
            return
        if not access.may_log(account, group, stream):
            logger.error(
                "access log of %s: the account's role may not write to %s", exchange.api["id"], group
            )
            return
        if stream not in cloudwatch_logs._log_groups[group]["streams"]:
            cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": stream})
        event = {"timestamp": int(time.time() * 1000), "message": line}
        cloudwatch_logs._put_log_events(
            {"logGroupName": group, "logStreamName": stream, "logEvents": [event]}
        )


def _context(exchange: Exchange, answer: Answer, latency_ms: int) -> Json:
    """`$context` as access logs know it: with the outcome. Absent members are written as `-`."""
    fault = exchange.fault
    integration_error = fault.reason if fault is not None and exchange.verb is not None else None
    context = exchange.context() | {
        "status": answer.status,
        "responseLength": len(answer.body),
        "responseLatency": latency_ms,
        "integrationStatus": exchange.integration_status,
        "integrationLatency": exchange.integration_latency_ms,
        "integrationErrorMessage": integration_error,
        "integration": {
            "status": exchange.integration_status,
            "latency": exchange.integration_latency_ms,
            "error": integration_error,
        },
    }
    if fault is not None:
        context["error"] = faults.error_context(fault)
    return context


def _write_metrics(exchange: Exchange, status: int, latency_ms: int) -> None:
    """AWS/ApiGateway as API Gateway publishes it: errors as zeros too, so that their average is a rate."""
    values = {
        "Count": (1, "Count"),
        "4XXError": (int(400 <= status < 500), "Count"),
        "5XXError": (int(status >= 500), "Count"),
        "Latency": (latency_ms, "Milliseconds"),
    }
    if exchange.integration_latency_ms is not None:
        values["IntegrationLatency"] = (exchange.integration_latency_ms, "Milliseconds")
    name = {"Name": "ApiName", "Value": exchange.api["name"]}
    stage = {"Name": "Stage", "Value": exchange.stage["stageName"]}
    dimensions = [[name], [name, stage]]
    if exchange.resource is not None and _detailed(exchange):
        method = {"Name": "Method", "Value": exchange.method}
        dimensions.append([name, method, {"Name": "Resource", "Value": exchange.resource["path"]}, stage])
    data = [
        {"MetricName": metric, "Dimensions": each, "Value": value, "Unit": unit, "Timestamp": time.time()}
        for metric, (value, unit) in values.items()
        for each in dimensions
    ]
    cloudwatch._put_metric_data({}, {"Namespace": "AWS/ApiGateway", "MetricData": data}, False, is_json=True)


def _detailed(exchange: Exchange) -> bool:
    settings = exchange.stage.get("methodSettings") or {}
    path = (exchange.resource or {}).get("path", "")
    return any(
        settings.get(key, {}).get("metricsEnabled")
        for key in (f"{path}/{exchange.method}", f"{path.lstrip('/')}/{exchange.method}", "*/*")
    )


def log_fault(exchange: Exchange) -> None:
    """The execution log's part: why a request failed, for whoever runs the embedded AWS."""
    fault = exchange.fault
    if fault is not None and fault.reason:
        request = json.dumps(f"{exchange.method} {exchange.path}")
        logger.warning("%s %s %s: %s", exchange.request_id, request, fault.response_type, fault.reason)
