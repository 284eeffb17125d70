"""`inferctl logs`, with botocore's stub as CloudWatch Logs; the platform's test runs every query for real."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from click.testing import CliRunner, Result

from inferctl import environment, queries
from inferctl.cli import cli

DEFINITIONS = [
    {
        "name": "inference-dev/tiny/one-request",
        "queryString": '# One request.\nfilter request_id = "{{request_id}}"',
        "logGroupNames": ["/access", "/tiny"],
        "parameters": [{"name": "request_id", "defaultValue": "0"}],
    },
    {
        "name": "inference-dev/one-request",
        "queryString": '# At the gateway.\nfilter request_id = "{{request_id}}"',
        "logGroupNames": ["/access"],
        "parameters": [{"name": "request_id"}],
    },
    {"name": "inference-dev/errors", "queryString": "# What fails.\nlimit 1", "logGroupNames": ["/access"]},
]


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    client = boto3.client("logs", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    aws = SimpleNamespace(client=lambda service: client)
    monkeypatch.setattr(environment, "connect", lambda name: aws)
    monkeypatch.setattr(queries, "POLL_SECONDS", 0)
    with Stubber(client) as stub:
        stub.add_response(
            "describe_query_definitions", {"queryDefinitions": DEFINITIONS[:2], "nextToken": "2"}
        )
        stub.add_response("describe_query_definitions", {"queryDefinitions": DEFINITIONS[2:]})
        yield stub


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--env", "dev", "logs", *arguments], prog_name="inferctl")


def expect(
    stub: Stubber, text: str, groups: list[str], *rows: dict[str, str], status: str = "Complete"
) -> None:
    asked = {"logGroupNames": groups, "queryString": text, "startTime": ANY, "endTime": ANY}
    stub.add_response("start_query", {"queryId": "q"}, asked)
    stub.add_response("get_query_results", {"status": "Running", "results": []}, {"queryId": "q"})
    results = [[{"field": name, "value": value} for name, value in row.items()] for row in rows]
    statistics = {"recordsScanned": 3.0, "bytesScanned": 99.0}
    answer: dict[str, Any] = {"status": status, "results": results, "statistics": statistics}
    stub.add_response("get_query_results", answer, {"queryId": "q"})


def test_without_a_query_it_lists_those_that_are_deployed(logs: Stubber) -> None:
    result = run("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [
        {"name": "errors", "question": "What fails."},
        {"name": "one-request", "question": "At the gateway."},
        {"name": "tiny/one-request", "question": "One request."},
    ]


def test_it_runs_a_query_to_its_end_and_prints_the_rows(logs: Stubber) -> None:
    expect(logs, "# What fails.\nlimit 1", ["/access"], {"status": "503", "@ptr": "p"}, {"error": "x"})
    result = run("errors", "--since", "15m")
    assert result.exit_code == 0, result.output
    assert [line.split() for line in result.stdout.splitlines()] == [["status", "error"], ["503"], ["x"]]
    logs.assert_no_pending_responses()


def test_one_request_goes_on_in_the_log_of_its_model(logs: Stubber) -> None:
    at_gateway, whole = (
        each["queryString"].replace("{{request_id}}", "abc-1") for each in DEFINITIONS[1::-1]
    )
    expect(logs, at_gateway, ["/access"], {"route": "/v2/models/tiny/infer"})
    expect(logs, whole, ["/access", "/tiny"], {"message": "request"})
    result = run("one-request", "--id", "abc-1", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "query": "tiny/one-request",
        "rows": [{"message": "request"}],
        "records_scanned": 3,
        "bytes_scanned": 99,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["errors", "--since", "1 hour"], "is not a length of time: use 90s"),
        (["errors", "--id", "a"], "takes no --id"),
        (["one-request"], "needs --id"),
        (["one-request", "--id", '" | limit 1'], "is not a request id"),
        (["nothing"], "There are: errors, one-request, tiny/one-request"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_asked(
    logs: Stubber, arguments: list[str], message: str
) -> None:
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_query_that_fails_is_an_error(logs: Stubber) -> None:
    expect(logs, "# What fails.\nlimit 1", ["/access"], status="Failed")
    result = run("errors")
    assert result.exit_code == 1
    assert "ended as Failed" in result.stderr
