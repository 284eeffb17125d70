"""Each saved query, as the template has it, over sample logs: it answers the question in its first line."""

import json
import re
from typing import Any

import pytest

from local_aws.insights import engine, language
from stacks.api import ACCESS_LOG_FORMAT
from tests.assembly import Assembly

START = 1_700_000_000_000
CPU, GPU = "file-type", "text-embedding"


def access(request_id: str, **values: Any) -> dict[str, str]:
    """A line of the access log: every value a text, `-` where API Gateway has none."""
    line = {
        "request_id": request_id,
        "client_id": "ada",
        "route": f"/v2/models/{CPU}/infer",
        "method": "POST",
        "status": 200,
        "latency_ms": 30,
        "integration_status": 200,
        "integration_latency_ms": 20,
        "response_bytes": 100,
        "source_ip": "10.0.0.1",
        **values,
    }
    assert line.keys() <= ACCESS_LOG_FORMAT.keys()
    return {name: str(line.get(name, "-")) for name in ACCESS_LOG_FORMAT}


def answered(request_id: str, version: str = "1.0.0", **values: Any) -> dict[str, Any]:
    """The line that function and container write for a request."""
    line = {
        "level": "INFO",
        "message": "request",
        "request_id": request_id,
        "model": CPU,
        "version": version,
        "status": 200,
        "latency_ms": 12.5,
        "bytes_in": 1000,
        "bytes_out": 100,
        "path": "/invocations",
    }
    return line | values


def report(**metrics: float) -> dict[str, Any]:
    """Lambda's own line about an invocation."""
    measured = {"durationMs": 10.0, "billedDurationMs": 11, **metrics}
    return {"type": "platform.report", "record": {"requestId": "i", "metrics": measured, "status": "success"}}


def definitions(assembly: Assembly) -> dict[str, dict[str, Any]]:
    found = [resource.properties for resource in assembly.resources("AWS::Logs::QueryDefinition")]
    return {properties["Name"]: properties for properties in found}


def ask(assembly: Assembly, query: str, *lines: dict[str, Any], **parameters: str) -> list[dict[str, str]]:
    definition = definitions(assembly)[f"inference-dev/{query}"]
    text = definition["QueryString"]
    for parameter in definition.get("Parameters", []):
        text = text.replace("{{" + parameter["Name"] + "}}", parameters[parameter["Name"]])
    events = [
        engine.Event(START + number * 1000, json.dumps(line), "000000000000:/group")
        for number, line in enumerate(lines)
    ]
    rows = engine.run(language.parse(text), events).rows
    return [{name: value for name, value in row.items() if name != "@ptr"} for row in rows]


def test_who_calls_what(dev: Assembly) -> None:
    lines = [access("1"), access("2", latency_ms=50), access("3", client_id="bob", status=503)]
    assert ask(dev, "who-calls-what", *lines) == [
        {"client_id": "ada", "route": f"/v2/models/{CPU}/infer", "status": "200", "requests": "2"}
        | {"p50_ms": "30", "p99_ms": "50"},
        {"client_id": "bob", "route": f"/v2/models/{CPU}/infer", "status": "503", "requests": "1"}
        | {"p50_ms": "30", "p99_ms": "30"},
    ]


def test_slowest_requests(dev: Assembly) -> None:
    lines = [access(str(ms), latency_ms=ms) for ms in (5, 1000, 90)]
    rows = ask(dev, "slowest-requests", *lines)
    assert [(row["request_id"], row["latency_ms"]) for row in rows] == [
        ("1000", "1000"),
        ("90", "90"),
        ("5", "5"),
    ]
    assert rows[0]["integration_latency_ms"] == "20"


def test_errors_by_cause(dev: Assembly) -> None:
    lines = [
        access("1"),
        access("2", status=401, error="UNAUTHORIZED", client_id="-"),
        access("3", status=504, error="INTEGRATION_TIMEOUT"),
        access("4", status=504, error="INTEGRATION_TIMEOUT", client_id="bob"),
    ]
    first, second = ask(dev, "errors-by-cause", *lines)
    assert (first["error"], first["requests"], first["clients"], first["example"]) == (
        "INTEGRATION_TIMEOUT",
        "2",
        "2",
        "4",
    )
    assert (second["status"], second["requests"]) == ("401", "1")


def test_throttled_clients(dev: Assembly) -> None:
    lines = [access("1"), *(access(str(n), client_id="bob", status=429, error="THROTTLED") for n in (2, 3))]
    [row] = ask(dev, "throttled-clients", *lines)
    assert (row["client_id"], row["source_ip"], row["requests"]) == ("bob", "10.0.0.1", "2")
    assert (row["first"], row["last"]) == ("2023-11-14 22:13:21.000", "2023-11-14 22:13:22.000")


def test_cost_by_client(dev: Assembly) -> None:
    lines = [
        access("1", integration_latency_ms=1500, response_bytes=10),
        access("2", integration_latency_ms=500, response_bytes=20),
        access("3", client_id="bob", integration_latency_ms=10, route=f"/v2/models/{GPU}/infer"),
        access("4", client_id="bob", status=429, integration_latency_ms="-"),
        access("5", client_id="bob", route=f"/v2/models/{GPU}/ready"),
    ]
    assert ask(dev, "cost-by-client", *lines) == [
        {"client_id": "ada", "model": CPU, "requests": "2", "model_seconds": "2", "answered_bytes": "30"},
        {"client_id": "bob", "model": GPU, "requests": "1", "model_seconds": "0.01", "answered_bytes": "100"},
    ]


def test_one_request_at_the_gateway(dev: Assembly) -> None:
    lines = [access("abc", status=503), access("def")]
    [row] = ask(dev, "one-request", *lines, request_id="abc")
    assert (row["status"], row["route"]) == ("503", f"/v2/models/{CPU}/infer")


@pytest.mark.parametrize("model", [CPU, GPU])
def test_who_called_what_version(dev: Assembly, model: str) -> None:
    lines = [
        *(access("1"), answered("1", "1.0.0")),
        *(access("2"), answered("2", "1.1.0")),
        *(access("3", client_id="bob"), answered("3", "1.1.0")),
        *(access("4"), answered("4", "1.1.0")),
        access("5", status=401),  # no model was called
    ]
    rows = ask(dev, f"{model}/who-called-what-version", *lines)
    assert {(row["client"], row["model_version"], row["requests"]) for row in rows} == {
        ("ada", "1.0.0", "1"),
        ("ada", "1.1.0", "2"),
        ("bob", "1.1.0", "1"),
    }
    assert rows[0]["first"] < rows[0]["last"]


@pytest.mark.parametrize("model", [CPU, GPU])
def test_cost_by_client_of_a_model(dev: Assembly, model: str) -> None:
    lines = [
        *(access("1", integration_latency_ms=1500), answered("1", bytes_in=7)),
        *(access("2", integration_latency_ms=500), answered("2", bytes_in=3)),
        *(access("3", client_id="bob"), answered("3")),
        access("4", client_id="bob", route="/v2/models/another/infer"),
    ]
    assert ask(dev, f"{model}/cost-by-client", *lines) == [
        {"client": "ada", "requests": "2", "model_seconds": "2", "sent_bytes": "10", "answered_bytes": "200"},
        {"client": "bob", "requests": "1", "model_seconds": "0.02", "sent_bytes": "1000"}
        | {"answered_bytes": "100"},
    ]


@pytest.mark.parametrize("model", [CPU, GPU])
def test_errors_of_a_model(dev: Assembly, model: str) -> None:
    failure = {"level": "ERROR", "message": "model not loaded", "model": CPU, "reason": "no manifest.json"}
    loading = answered("0", status=503, path="/ping")
    lines = [loading, access("1", status=503), answered("1", status=503), answered("2"), failure]
    rows = ask(dev, f"{model}/errors", *lines)
    assert [(row["message"], row.get("reason"), row.get("request_id")) for row in rows] == [
        ("model not loaded", "no manifest.json", None),
        ("request", None, "1"),
    ]


def test_cold_starts(dev: Assembly) -> None:
    lines = [report(initDurationMs=900), report(), report(restoreDurationMs=300), report(), answered("1")]
    [row] = ask(dev, f"{CPU}/cold-starts", *lines)
    del row["bin(1h)"]
    assert row == {"invocations": "4", "cold_starts": "2", "cold_percent": "50"} | {
        "average_ms": "600",
        "longest_ms": "900",
    }
    assert f"inference-dev/{GPU}/cold-starts" not in definitions(dev)


@pytest.mark.parametrize("model", [CPU, GPU])
def test_one_request_from_end_to_end(dev: Assembly, model: str) -> None:
    lines = [answered("abc", cold_start=True), access("abc"), access("def")]
    rows = ask(dev, f"{model}/one-request", *lines, request_id="abc")
    assert [row.get("client_id") for row in rows] == [None, "ada"]
    assert (rows[0]["version"], rows[0]["cold_start"]) == ("1.0.0", "1")


def test_queries_read_log_groups_that_the_platform_has(assembly: Assembly) -> None:
    groups = {
        resource.properties.get("LogGroupName") for resource in assembly.resources("AWS::Logs::LogGroup")
    }
    found = definitions(assembly)
    assert found
    for name, definition in found.items():
        assert set(definition["LogGroupNames"]) <= groups, name


def test_every_placeholder_is_a_parameter_and_every_query_says_what_it_answers(assembly: Assembly) -> None:
    for name, definition in definitions(assembly).items():
        placeholders = set(re.findall(r"{{(\w+)}}", definition["QueryString"]))
        assert placeholders == {p["Name"] for p in definition.get("Parameters", [])}, name
        assert definition["QueryString"].startswith("# "), name
