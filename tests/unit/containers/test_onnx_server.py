"""SageMaker's container contract, kept by a real process of the image's own entry point."""

import http.client
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from unittest.mock import ANY

import pytest
from onnx import TensorProto
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.containers.process import Server, serving
from tests.unit.runtime import tiny

SLOW = """
import time

def load(folder):
    time.sleep(1.5)

def preprocess(inputs, state):
    time.sleep(float(inputs["x"].max()))
    return inputs
"""


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    artifact = tiny.doubler(folder / "model")
    settings = {"MAX_BODY_BYTES": "100000", "PROCESSES": str(request.param)}
    with serving(artifact.folder, artifact.manifest.sha256, folder / "log", **settings) as running:
        running.wait_until_joined(request.param - 1)
        yield running


@pytest.mark.parametrize("path", ["/invocations", "/v2/models/doubler/infer"])
def test_inference_by_either_address(server: Server, path: str) -> None:
    reply = server.request("POST", path, json.dumps(tiny.REQUEST), {"content-type": "application/json"})
    assert (reply.status, reply.json) == (200, tiny.ANSWER)
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/ping", {"ready": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/doubler/ready", {"name": "doubler", "ready": True}),
    ],
)
def test_health_and_readiness(server: Server, path: str, document: dict[str, object]) -> None:
    reply = server.request("GET", path)
    assert (reply.status, reply.json) == (200, document)


def test_metadata_through_sagemakers_one_address(server: Server) -> None:
    reply = server.request(
        "POST", "/invocations", headers={"X-Amzn-SageMaker-Custom-Attributes": "op=metadata"}
    )
    assert reply.json == server.request("GET", "/v2/models/doubler").json
    assert reply.json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
        ("DELETE", "/v2/models/doubler", 405),
    ],
)
def test_what_does_not_exist_is_a_problem_document(
    server: Server, method: str, path: str, status: int
) -> None:
    reply = server.request(method, path)
    assert (reply.status, reply.json["status"]) == (status, status)
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {"X-Amzn-SageMaker-Custom-Attributes": "from-the-gateway", "x-request-id": "other"},
            "from-the-gateway",
        ),
        ({"X-Amzn-SageMaker-Inference-Id": "inference-7", "x-request-id": "other"}, "inference-7"),
        ({"X-Amzn-SageMaker-Custom-Attributes": "op=metadata", "x-request-id": "direct"}, "direct"),
    ],
)
def test_the_callers_request_id_is_used(server: Server, headers: dict[str, str], expected: str) -> None:
    assert server.request("POST", "/invocations", headers=headers).headers["x-request-id"] == expected


@pytest.mark.parametrize("headers", [{}, {"x-request-id": "two words"}, {"x-request-id": "x" * 129}])
def test_without_a_usable_request_id_there_is_a_new_one(server: Server, headers: dict[str, str]) -> None:
    reply = server.request("GET", "/nowhere", headers=headers)
    assert uuid.UUID(reply.headers["x-request-id"]).version == 4
    assert reply.json["request_id"] == reply.headers["x-request-id"]


def test_a_body_that_announces_to_be_too_large_is_refused_unread(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_length_is_refused_at_the_limit_and_not_after(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        # The body goes on, and the answer is already here.
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_all_of_a_large_body_reads_the_refusal(server: Server) -> None:
    reply = server.request("POST", "/invocations", b" " * 5_000_000)
    assert (reply.status, reply.json["type"]) == (413, "urn:inference-platform:problem:payload-too-large")
    assert server.request("GET", "/ping").status == 200


def test_a_client_that_leaves_midway_disturbs_nobody(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
    assert server.request("POST", "/invocations", tiny.body()).status == 200
    assert [entry for entry in server.records("request") if entry["bytes_in"] == 1] == []


def test_the_access_log_has_the_request_id_and_never_a_payload(server: Server) -> None:
    request_id = str(uuid.uuid4())
    server.request("POST", "/invocations", tiny.body(data=[1, 2, 3, 123456.5]), {"x-request-id": request_id})
    [record] = [entry for entry in server.records("request") if entry["request_id"] == request_id]
    assert record["status"] == 200
    assert (record["model"], record["version"], record["path"]) == ("doubler", "1", "/invocations")
    assert record["latency_ms"] > 0
    assert "123456" not in server.log.read_text()
    assert all(entry["path"] != "/ping" or entry["status"] != 200 for entry in server.records("request"))


def test_connections_are_accepted_at_once_and_ping_is_true_while_the_model_loads(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model", handler=SLOW)
    with serving(artifact.folder, artifact.manifest.sha256, tmp_path / "log") as server:
        server.connect().close()
        # SageMaker's 250 ms, with room for a busy machine: less than the model takes to load.
        assert time.monotonic() - server.started < 1.5
        assert server.request("GET", "/ping").status == 503
        reply = server.request("POST", "/invocations", tiny.body())
        assert (reply.status, reply.json["type"]) == (503, "urn:inference-platform:problem:model-unavailable")
        server.wait_until_ready()
        assert time.monotonic() - server.started > 1.5


def test_ping_is_answered_while_every_thread_infers_and_a_stop_drains(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model", handler=SLOW)
    threads = os.cpu_count() or 1
    with (
        serving(artifact.folder, artifact.manifest.sha256, tmp_path / "log") as server,
        ThreadPoolExecutor(threads) as clients,
    ):
        server.wait_until_ready()
        body = tiny.body(data=[1.5, 0, 0, 0])
        slow = [clients.submit(server.request, "POST", "/invocations", body) for _ in range(threads)]
        time.sleep(0.3)
        assert server.request("GET", "/ping").status == 200
        assert not any(request.done() for request in slow)

        assert server.stop() == 0
        assert [request.result().status for request in slow] == [200] * threads
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.parametrize("damage", ["file", "id"])
def test_a_corrupt_artifact_never_serves_and_the_log_says_why(tmp_path: Path, damage: str) -> None:
    artifact = tiny.doubler(tmp_path / "model")
    sha256 = artifact.manifest.sha256
    expected = artifact.manifest.files["model.onnx"].sha256
    if damage == "file":
        (artifact.folder / "model.onnx").write_bytes(b"damaged")
    else:
        sha256 = expected = "0" * 64
    with serving(artifact.folder, sha256, tmp_path / "log") as server:
        server.connect().close()
        while not server.records("model not loaded"):
            assert time.monotonic() < server.started + 30
            time.sleep(0.05)
        [record] = server.records("model not loaded")
        assert record["reason"].startswith("model.onnx:" if damage == "file" else "manifest.json:")
        assert expected in record["reason"]
        assert server.request("GET", "/ping").status == 503
        reply = server.request("POST", "/invocations", tiny.body())
        assert (reply.status, reply.json["detail"]) == (503, "The model 'doubler' could not be loaded")


def test_concurrent_clients_get_their_own_answers(server: Server) -> None:
    def ask(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for number in range(20):
            rows = 1 + (client + number) % 3
            values = [float(client * 1000 + number + place) for place in range(2 * rows)]
            connection.request("POST", "/invocations", tiny.body(shape=[rows, 2], data=values))
            answer = json.loads(connection.getresponse().read())
            assert answer["outputs"][0]["data"] == [value * 2 for value in values]
            assert answer["outputs"][0]["shape"] == [rows, 2]
        connection.close()

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, range(8)))


def test_a_server_that_nobody_asks_rests_though_its_clients_stay(server: Server) -> None:
    def worked() -> float:
        times = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(3):
        connection.request("POST", "/invocations", tiny.body())
        connection.getresponse().read()
    time.sleep(0.1)
    before = worked()
    time.sleep(0.4)
    assert worked() - before < 0.2
    connection.close()


def test_lines_are_inferred_together_and_answered_in_order(server: Server) -> None:
    lines = b"\n".join(tiny.body(shape=[1, 2], data=[number, -number]) for number in range(200))
    reply = server.request("POST", "/invocations", lines, {"content-type": "application/jsonlines"})
    answers = [json.loads(line)["outputs"][0]["data"] for line in reply.body.splitlines()]
    assert answers == [[number * 2, -number * 2] for number in range(200)]
    bad = lines + b"\n" + tiny.body(data=[1])
    refused = server.request("POST", "/invocations", bad, {"content-type": "application/jsonlines"})
    assert refused.status == 400
    assert "201" in refused.json["detail"]


def test_metrics_count_what_was_asked(server: Server) -> None:
    def scraped() -> dict[tuple[str, str], float]:
        reply = server.request("GET", "/metrics")
        assert reply.headers["content-type"].startswith("text/plain")
        return {
            (sample.name, sample.labels.get("phase") or sample.labels.get("status", "")): sample.value
            for family in text_string_to_metric_families(reply.body.decode())
            for sample in family.samples
            if "le" not in sample.labels and sample.labels.get("model") == "doubler"
        }

    before = scraped()
    for body in (tiny.body(), tiny.body(), b"nonsense"):
        server.request("POST", "/invocations", body)
    after = scraped()
    phases = ("parse", "queue", "compute", "serialize", "total")
    assert {name: after[name] - before.get(name, 0) for name in after if before.get(name) != after[name]} == {
        ("inference_requests_total", "200"): 2 + 1,
        ("inference_requests_total", "400"): 1,
        **{("inference_phase_seconds_count", phase): 2 for phase in phases},
        **{("inference_phase_seconds_sum", phase): ANY for phase in phases},
        ("inference_batch_rows_count", ""): 2,
        ("inference_batch_rows_sum", ""): 4,
    }
    assert after["inference_queue_depth", ""] == 0
    assert after["inference_model_load_seconds", ""] > 0


def test_the_access_log_is_bounded_and_says_what_it_left_out(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model")
    with serving(
        artifact.folder, artifact.manifest.sha256, tmp_path / "log", LOG_LINES_PER_SECOND="3"
    ) as server:
        server.wait_until_ready()
        for _ in range(60):
            assert server.request("GET", "/v2").status == 200
        families = text_string_to_metric_families(server.request("GET", "/metrics").body.decode())
        requests = next(family for family in families if family.name == "inference_requests")
        answered = sum(sample.value for sample in requests.samples)
        # The scrape itself is logged after it was answered, or left out.
        while (said := _logged_or_left_out(server)) <= answered:
            time.sleep(0.05)
        assert said == answered + 1
        assert server.records("requests not logged")


def _logged_or_left_out(server: Server) -> int:
    left_out = sum(entry["count"] for entry in server.records("requests not logged"))
    return left_out + len(server.records("request"))


def test_overload_is_refused_at_once_and_what_was_accepted_is_answered(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model", handler=SLOW)
    with (
        serving(
            artifact.folder,
            artifact.manifest.sha256,
            tmp_path / "log",
            MAX_QUEUE_SIZE="2",
            MAX_BATCH_SIZE="1",
        ) as server,
        ThreadPoolExecutor(8) as clients,
    ):
        server.wait_until_ready()
        body = tiny.body(data=[0.7, 0, 0, 0])
        asked = [clients.submit(server.request, "POST", "/invocations", body) for _ in range(8)]
        replies = [request.result() for request in as_completed(asked)]
        # Whoever is refused hears of it first. One runs and two wait, unless all came at once.
        statuses = [reply.status for reply in replies]
        assert statuses in ([429] * 5 + [200] * 3, [429] * 6 + [200] * 2)
        refused = [reply for reply in replies if reply.status == 429]
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert server.request("GET", "/ping").status == 200


def test_a_wedged_engine_is_no_longer_ready_and_deadlines_hold(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path / "model", handler=SLOW)
    with serving(artifact.folder, artifact.manifest.sha256, tmp_path / "log", WEDGED_MS="300") as server:
        server.wait_until_ready()
        reply = server.request(
            "POST", "/invocations", tiny.body(data=[60, 0, 0, 0]), {"x-request-timeout-ms": "500"}
        )
        assert (reply.status, reply.json["type"]) == (504, "urn:inference-platform:problem:timeout")
        assert server.request("GET", "/ping").status == 503
        assert server.request("GET", "/v2/models/doubler/ready").status == 503
        assert server.request("GET", "/v2/health/live").status == 200
        reply = server.request("POST", "/invocations", tiny.body())
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")


def test_a_timeout_that_is_no_number_is_refused(server: Server) -> None:
    reply = server.request("POST", "/invocations", tiny.body(), {"x-request-timeout-ms": "soon"})
    assert (reply.status, reply.json["detail"]) == (
        400,
        "x-request-timeout-ms is 'soon'; it must be milliseconds",
    )


def test_models_of_a_repository_come_and_go_while_others_answer(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    tiny.doubler(repository / "doubler")
    with serving(repository, "", tmp_path / "log", MODEL_MEMORY_BYTES="3000") as server:
        server.wait_until_ready()
        assert server.request("POST", "/invocations", tiny.body()).status == 200
        assert "model_repository" in server.request("GET", "/v2").json["extensions"]

        tiny.identity(repository / "identity", "FP32", TensorProto.FLOAT, handler=SLOW)
        tiny.doubler(repository / "large", files={"weights": bytes(5000)})
        index = server.request("POST", "/v2/repository/index").json
        assert [(entry["name"], entry["state"]) for entry in index] == [
            ("doubler", "READY"),
            ("identity", "UNAVAILABLE"),
            ("large", "UNAVAILABLE"),
        ]
        assert [
            e["name"] for e in server.request("POST", "/v2/repository/index", b'{"ready":true}').json
        ] == ["doubler"]

        load = "/v2/repository/models/identity/load"
        with ThreadPoolExecutor(1) as other:
            loading = other.submit(server.request, "POST", load)
            while not loading.done():
                assert server.request("POST", "/invocations", tiny.body()).json["outputs"][0]["data"][0] == 2
            assert loading.result().status == 200
        asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
        infer = ("POST", "/v2/models/identity/infer", json.dumps(asked))
        assert server.request(*infer).json["outputs"][0]["data"] == [0.5]

        reply = server.request("POST", "/v2/repository/models/large/load")
        assert (reply.status, reply.json["type"]) == (
            507,
            "urn:inference-platform:problem:insufficient-memory",
        )
        assert server.request("POST", "/v2/repository/models/other/load").status == 404

        assert server.request("POST", "/v2/repository/models/identity/unload").status == 200
        assert server.request(*infer).status == 404
        assert server.request("POST", "/v2/repository/models/identity/unload").status == 404
        assert server.request("GET", "/ping").status == 200


def test_a_server_of_one_model_keeps_it(server: Server) -> None:
    assert server.request("POST", "/v2/repository/models/doubler/unload").status == 404
    assert server.request("POST", "/v2/repository/index").json == [
        {"name": "doubler", "version": "1", "state": "READY", "reason": ""}
    ]
    assert server.request("POST", "/invocations", tiny.body()).status == 200


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("MAX_QUEUE_SIZE", "many", "MAX_QUEUE_SIZE is 'many'; it must be a whole number, at least 1"),
        ("DEVICE", "tpu", "DEVICE is 'tpu'; it must be one of auto, cpu, cuda, tensorrt"),
    ],
)
def test_a_setting_that_has_no_such_value_is_named(
    tmp_path: Path, setting: str, value: str, said: str
) -> None:
    with serving(tmp_path, "0" * 64, tmp_path / "log", **{setting: value}) as server:
        assert server.process.wait(timeout=30) == 2
        assert said in server.log.read_text()


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    with serving(tmp_path, "", tmp_path / "log") as server:
        assert server.process.wait(timeout=30) == 2
        assert "the environment lacks MODEL_SHA256" in server.log.read_text()
