"""The saved queries over the logs of real requests: what on-call asks is answered by what was written."""

import base64
import json
import time
from typing import Any

import pytest

from app import ROOT
from tests.integration.platform.conftest import Platform

GROUPS = {
    "file-type": "/aws/lambda/inference-local-file-type",
    "text-embedding": "/aws/sagemaker/Endpoints/inference-local-text-embedding",
}


@pytest.fixture(scope="module")
def request_ids(platform: Platform) -> dict[str, str]:
    """What was asked -> the id of its answer."""
    samples = {model: (ROOT / "models" / model / "sample.json").read_bytes() for model in GROUPS}
    answers = {model: platform.infer(model, sample) for model, sample in samples.items()}
    answers["refused"] = platform.infer("file-type", b"{}")
    answers["nobody"] = platform.infer("file-type", b"{}", token=None)
    answers["nowhere"] = platform.call("GET", "/v2/nowhere")
    assert [answer.status_code for answer in answers.values()] == [200, 200, 400, 401, 404]
    return {name: answer.headers["x-request-id"] for name, answer in answers.items()}


def ask(platform: Platform, name: str, **parameters: str) -> list[dict[str, str]]:
    """Run a saved query as the console does: the definition's text and log groups."""
    logs = platform.aws("logs")
    saved = logs.describe_query_definitions(queryDefinitionNamePrefix=f"inference-local/{name}")
    [definition] = [q for q in saved["queryDefinitions"] if q["name"] == f"inference-local/{name}"]
    text = definition["queryString"]
    for parameter in definition.get("parameters", []):
        text = text.replace("{{" + parameter["name"] + "}}", parameters[parameter["name"]])
    now = int(time.time())
    query = logs.start_query(
        logGroupNames=definition["logGroupNames"], startTime=now - 3600, endTime=now + 1, queryString=text
    )
    result = logs.get_query_results(queryId=query["queryId"])
    assert result["status"] == "Complete"
    return [{cell["field"]: cell["value"] for cell in row} for row in result["results"]]


def test_who_calls_what_and_who_makes_the_models_work(
    platform: Platform, request_ids: dict[str, str]
) -> None:
    claims = platform.token().split(".")[1]
    client = json.loads(base64.urlsafe_b64decode(claims + "=="))["client_id"]
    asked = {(row["client_id"], row["route"], row["status"]) for row in ask(platform, "who-calls-what")}
    assert {
        (client, "/v2/models/file-type/infer", "200"),
        (client, "/v2/models/file-type/infer", "400"),
        ("-", "/v2/models/file-type/infer", "401"),
    } <= asked
    worked = {(row["client_id"], row["model"]): row for row in ask(platform, "cost-by-client")}
    assert {(client, model) for model in GROUPS} <= worked.keys()
    assert all(float(worked[client, model]["model_seconds"]) > 0 for model in GROUPS)


def test_errors_have_their_cause_and_an_example(platform: Platform, request_ids: dict[str, str]) -> None:
    rows = ask(platform, "errors-by-cause")
    causes = {row["example"]: (row["status"], row["error"]) for row in rows}
    assert causes[request_ids["nobody"]] == ("401", "UNAUTHORIZED")
    assert causes[request_ids["nowhere"]] == ("404", "MISSING_AUTHENTICATION_TOKEN")
    assert ask(platform, "throttled-clients") == [row for row in rows if row["status"] == "429"]


def test_the_slowest_come_first(platform: Platform, request_ids: dict[str, str]) -> None:
    latencies = [float(row["latency_ms"]) for row in ask(platform, "slowest-requests")]
    assert len(latencies) >= len(request_ids)
    assert latencies == sorted(latencies, reverse=True)


@pytest.mark.parametrize("model", GROUPS)
def test_a_models_queries_join_the_gateways_lines_and_its_own(
    platform: Platform, request_ids: dict[str, str], model: str
) -> None:
    called = ask(platform, f"{model}/who-called-what-version")
    assert {row["model_version"] for row in called} == {"1.0.0"}
    cost = ask(platform, f"{model}/cost-by-client")
    assert {row["client"] for row in cost} == {row["client"] for row in called}
    sample = (ROOT / "models" / model / "sample.json").stat().st_size
    assert max(int(row["sent_bytes"]) for row in cost) >= sample
    for row in ask(platform, f"{model}/errors"):
        assert row.get("level") == "ERROR" or int(row["status"]) >= 500


def test_cold_starts_of_a_function_are_counted(platform: Platform, request_ids: dict[str, str]) -> None:
    rows = ask(platform, "file-type/cold-starts")
    assert sum(int(row["cold_starts"]) for row in rows) >= 1
    assert all(int(row["invocations"]) >= int(row["cold_starts"]) for row in rows)
    assert max(float(row["longest_ms"]) for row in rows if "longest_ms" in row) > 0


@pytest.mark.parametrize("model", GROUPS)
def test_one_request_is_followed_by_its_id_through_every_log(
    platform: Platform, request_ids: dict[str, str], model: str
) -> None:
    done = platform.inferctl("logs", "one-request", "--id", request_ids[model], "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    by_group = {row["@log"].partition(":")[2]: row for row in answer["rows"]}
    assert by_group.keys() == {"/inference/local/api-access", GROUPS[model]}
    assert by_group["/inference/local/api-access"]["status"] == "200"
    assert (by_group[GROUPS[model]]["model"], by_group[GROUPS[model]]["version"]) == (model, "1.0.0")


def test_the_saved_queries_are_listed(platform: Platform) -> None:
    done = platform.inferctl("logs")
    assert done.returncode == 0, done.stderr
    for name in ("slowest-requests", "file-type/cold-starts", "text-embedding/one-request"):
        assert name in done.stdout


def test_the_trace_of_a_function_is_found_by_the_requests_id(
    platform: Platform, request_ids: dict[str, str]
) -> None:
    now = time.time()
    found = platform.aws("xray").get_trace_summaries(StartTime=now - 3600, EndTime=now)["TraceSummaries"]
    texts = [
        {name: values[0]["AnnotationValue"]["StringValue"] for name, values in trace["Annotations"].items()}
        for trace in found
    ]
    [trace] = [each for each in texts if each.get("request_id") == request_ids["file-type"]]
    assert trace == {
        "model": "file-type",
        "version": "1.0.0",
        "request_id": request_ids["file-type"],
    }
