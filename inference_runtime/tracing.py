"""One X-Ray subsegment per request of the Lambda target, so that traces are found by model, version and id.

The function's own segment is Lambda's, made because its tracing is active. A subsegment is one datagram to
the daemon that Lambda runs beside the function: no SDK in the zip, and nothing more in a cold start.
https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-daemon
"""

import json
import os
import re
import secrets
import socket
from collections.abc import Mapping

_HEADER = b'{"format": "json", "version": 1}\n'
_DAEMON = re.compile(r"(?:.*udp:)?(?P<host>[\w.-]+):(?P<port>\d+)")


def record(name: str, started: float, ended: float, status: int, annotations: Mapping[str, str]) -> None:
    """Add a subsegment to this invocation's trace, if it is sampled.

    Never fails: a trace is not worth an answer.

    Args:
        started, ended: seconds since the epoch.
        status: the HTTP status that was answered.
        annotations: what traces can be searched by.
    """
    # Lambda sets both, the second anew for each invocation.
    daemon = _DAEMON.match(os.environ.get("AWS_XRAY_DAEMON_ADDRESS", ""))
    pairs = os.environ.get("_X_AMZN_TRACE_ID", "").split(";")
    trace = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    if daemon is None or trace.get("Sampled") != "1" or not trace.get("Root") or not trace.get("Parent"):
        return
    subsegment = {
        "type": "subsegment",
        "name": name,
        "id": secrets.token_hex(8),
        "trace_id": trace["Root"],
        "parent_id": trace["Parent"],
        "start_time": started,
        "end_time": ended,
        "error": 400 <= status < 500,
        "fault": status >= 500,
        "annotations": dict(annotations),
    }
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(_HEADER + json.dumps(subsegment).encode(), (daemon["host"], int(daemon["port"])))
    except OSError:
        return
