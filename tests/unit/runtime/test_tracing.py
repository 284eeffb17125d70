"""The subsegment of a request, as the X-Ray daemon receives it."""

import json
import socket
from collections.abc import Iterator

import pytest

from inference_runtime import tracing

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
        yield server


def record(status: int = 200) -> None:
    tracing.record("inference", 10.0, 10.5, status, {"model": "tiny", "request_id": "abc"})


@pytest.mark.parametrize(
    ("status", "error", "fault"), [(200, False, False), (400, True, False), (503, False, True)]
)
def test_a_sampled_request_becomes_a_subsegment_of_lambdas_segment(
    daemon: socket.socket, status: int, error: bool, fault: bool
) -> None:
    record(status)
    header, _, document = daemon.recv(65536).partition(b"\n")
    assert json.loads(header) == {"format": "json", "version": 1}
    subsegment = json.loads(document)
    assert len(subsegment.pop("id")) == 16
    assert subsegment == {
        "type": "subsegment",
        "name": "inference",
        "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "parent_id": "53995c3f42cd8ad8",
        "start_time": 10.0,
        "end_time": 10.5,
        "error": error,
        "fault": fault,
        "annotations": {"model": "tiny", "request_id": "abc"},
    }


def test_the_daemons_address_may_name_both_protocols(
    daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = daemon.getsockname()[1]
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"tcp:127.0.0.1:1 udp:127.0.0.1:{port}")
    record()
    assert daemon.recv(65536)


@pytest.mark.parametrize("trace", ["", TRACE.replace("Sampled=1", "Sampled=0"), "Sampled=1", "nonsense"])
def test_a_request_that_is_not_sampled_sends_nothing(
    daemon: socket.socket, monkeypatch: pytest.MonkeyPatch, trace: str
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
    record()
    daemon.setblocking(False)
    with pytest.raises(BlockingIOError):
        daemon.recv(65536)


@pytest.mark.parametrize("address", ["", "nowhere", "256.0.0.1:2000", "no-such-host.invalid:2000"])
def test_a_missing_daemon_costs_the_request_nothing(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", TRACE)
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", address)
    record()
