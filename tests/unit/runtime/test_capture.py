"""Captures: SageMaker's records, written after the answer, without what must not be kept."""

import base64
import dataclasses
import json
import queue
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from inference_runtime import capture
from inference_runtime.capture import Exchange, Recorder

URI = "s3://data/captures/inference-dev-doubler/AllTraffic/"
REQUEST = {"id": "r", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
ANSWER = {
    "model_version": "1.0.0",
    "outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [2.0, 4.0]}],
}
PATIENCE = 10  # seconds, for what takes milliseconds


def exchange(request_id: str = "request-1") -> Exchange:
    return Exchange(
        request_id,
        json.dumps(REQUEST).encode(),
        json.dumps(ANSWER).encode(),
        datetime(2026, 3, 4, 5, 6, 7, 8000, UTC),
    )


class Bucket:
    """Stands for S3: what was put, in order."""

    def __init__(self) -> None:
        self.objects: queue.Queue[dict[str, Any]] = queue.Queue()

    def put(self, *written: Any) -> None:
        self.objects.put(dict(zip(("bucket", "key", "body", "type"), written, strict=True)))

    def get(self) -> dict[str, Any]:
        return self.objects.get(timeout=PATIENCE)


class Lambda:
    """The Extensions API of an execution environment: it says what an extension asks for."""

    def __init__(self) -> None:
        self.asked: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.invocations: queue.Queue[int] = queue.Queue()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.asked.put((self.path, self.headers["Lambda-Extension-Name"]))
                assert json.loads(self.rfile.read(length)) == {"events": ["INVOKE"]}
                self.answer(200, {"Lambda-Extension-Identifier": "extension-1"})

            def do_GET(self) -> None:
                outer.asked.put((self.path, self.headers["Lambda-Extension-Identifier"]))
                self.answer(outer.invocations.get(timeout=PATIENCE), {})

            def answer(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "2"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next_asked(self) -> tuple[str, str | None]:
        return self.asked.get(timeout=PATIENCE)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lambda]:
    started = Lambda()
    monkeypatch.setenv(capture.LAMBDA_API, f"127.0.0.1:{started.server.server_port}")
    yield started
    started.server.shutdown()
    started.server.server_close()


def test_an_exchange_is_one_line_at_the_place_of_its_hour() -> None:
    bucket = Bucket()
    Recorder(URI, 1.0, (), bucket.put).end(exchange())
    written = bucket.get()
    assert written["bucket"] == "data"
    folder = "captures/inference-dev-doubler/AllTraffic/2026/03/04/05"
    assert re.fullmatch(rf"{folder}/06-07-008-[0-9a-f-]{{36}}\.jsonl", written["key"])
    (line,) = written["body"].splitlines()
    kept = json.loads(line)
    assert kept["eventMetadata"]["inferenceId"] == "request-1"
    assert kept["eventMetadata"]["inferenceTime"] == "2026-03-04T05:06:07Z"
    assert kept["eventVersion"] == "0"
    for side, mode, document in (("endpointInput", "INPUT", REQUEST), ("endpointOutput", "OUTPUT", ANSWER)):
        body = kept["captureData"][side]
        assert (body["mode"], body["encoding"], body["observedContentType"]) == (
            mode,
            "JSON",
            "application/json",
        )
        assert json.loads(body["data"]) == document


@pytest.mark.parametrize(("name", "side"), [("x", "endpointInput"), ("y", "endpointOutput")])
def test_values_of_redacted_tensors_are_not_kept(name: str, side: str) -> None:
    kept = capture.record(exchange(), {name})["captureData"]
    for other in ("endpointInput", "endpointOutput"):
        document = json.loads(kept[other]["data"])
        (tensor,) = document.get("inputs") or document["outputs"]
        assert ("data" in tensor) == (other != side)
        assert tensor["shape"] == [2]


@pytest.mark.parametrize(
    ("keep", "sides"),
    [
        (capture.BOTH, ["endpointInput", "endpointOutput"]),
        (capture.REQUESTS, ["endpointInput"]),
        (capture.ANSWERS, ["endpointOutput"]),
    ],
)
def test_a_side_that_is_not_to_be_kept_is_not(keep: str, sides: list[str]) -> None:
    bucket = Bucket()
    Recorder(URI, 1, (), bucket.put, keep).end(exchange())
    assert list(json.loads(bucket.get()["body"])["captureData"]) == sides


def test_what_is_no_json_is_kept_as_base64_and_not_at_all_where_values_may_not_be() -> None:
    octets = dataclasses.replace(exchange(), answer=b"\xff\x00", answer_type="application/octet-stream")
    kept = capture.record(octets)["captureData"]["endpointOutput"]
    assert (kept["observedContentType"], kept["encoding"]) == ("application/octet-stream", "BASE64")
    assert base64.b64decode(kept["data"]) == b"\xff\x00"
    assert capture.record(octets, {"x"})["captureData"]["endpointOutput"]["data"] == ""


def test_only_the_share_is_kept() -> None:
    bucket = Bucket()
    none, every = Recorder(URI, 0.0, (), bucket.put), Recorder(URI, 1.0, (), bucket.put)
    for _ in range(50):
        none.end(exchange("dropped"))
    every.end(exchange("kept"))
    assert json.loads(bucket.get()["body"])["eventMetadata"]["inferenceId"] == "kept"
    assert bucket.objects.empty()


def test_a_capture_that_cannot_be_written_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    bucket = Bucket()

    def put(*written: Any) -> None:
        if b"lost" in written[2]:
            raise OSError("no route")
        bucket.put(*written)

    recorder = Recorder(URI, 1.0, (), put)
    recorder.end(exchange("lost"))
    recorder.end(exchange("kept"))
    assert b"kept" in bucket.get()["body"]
    (record,) = caplog.records
    assert (record.__dict__["request_id"], record.__dict__["reason"]) == ("lost", "no route")


def test_lambda_is_asked_for_the_next_event_only_when_the_capture_is_written(environment: Lambda) -> None:
    bucket, may_write = Bucket(), threading.Event()

    def put(*written: Any) -> None:
        assert may_write.wait(PATIENCE)
        bucket.put(*written)

    recorder = Recorder(URI, 1.0, (), put)
    assert environment.next_asked() == ("/2020-01-01/extension/register", "capture")
    assert environment.next_asked() == ("/2020-01-01/extension/event/next", "extension-1")
    environment.invocations.put(200)
    recorder.end(exchange())  # returns: the answer leaves while the write is still waiting
    assert environment.asked.empty()
    may_write.set()
    assert bucket.get()
    assert environment.next_asked() == ("/2020-01-01/extension/event/next", "extension-1")

    environment.invocations.put(200)
    recorder.end(None)
    assert environment.next_asked()[0].endswith("/event/next")
    environment.invocations.put(500)  # as after a restore; it asks again, or the function would hang
    assert environment.next_asked()[0].endswith("/event/next")
    environment.invocations.put(200)
