"""Drift on the platform: requests are captured and compared with the artifact's own baseline; what changed is
in S3, in CloudWatch, on EventBridge and in Athena.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import ROOT
from tests.integration.local_aws.embedded import until
from tests.integration.platform import rights
from tests.integration.platform.conftest import Platform
from tests.integration.platform.hearing import Heard, hearing

MODEL = "wine-cultivar"
ROWS = 16
PROLINE = 12


@pytest.fixture(scope="module")
def wines() -> list[dict[str, Any]]:
    """The data that the model was made from, as requests and answers: its baseline."""
    lines = (ROOT / "models" / MODEL / "baseline.jsonl").read_text().splitlines()
    # Far from each other in the file are wines of other cultivars.
    return [json.loads(lines[number * 53 % len(lines)]) for number in range(len(lines))]


@pytest.fixture(scope="module")
def heard(platform: Platform) -> Iterator[Heard]:
    """Every event of the platform's own."""
    with hearing(platform, "hears-drift", {"source": ["inference.platform"]}) as found:
        yield found


def ask(platform: Platform, rows: list[list[float]]) -> dict[str, list[str]]:
    """Ask about wines, many at a time; the answered cultivars by request id, once all are captured."""
    answers = {}
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        tensor = {"name": "measurements", "datatype": "FP32", "shape": [len(part), 13], "data": part}
        answer = platform.infer(MODEL, json.dumps({"inputs": [tensor]}).encode())
        assert answer.status_code == 200, answer.text
        answers[answer.headers["x-request-id"]] = answer.json()["outputs"][0]["data"]
    environment = platform.deployed.environment
    prefix = f"captures/inference-local-{MODEL}/"
    until(lambda: answers.keys() <= set(captured(platform, bucket(environment), prefix)))
    return answers


def bucket(environment: Any) -> str:
    return f"inference-local-data-{environment.account}-{environment.region}"


def captured(platform: Platform, name: str, prefix: str) -> Iterator[str]:
    s3 = platform.aws("s3")
    for item in s3.list_objects_v2(Bucket=name, Prefix=prefix).get("Contents", []):
        for line in s3.get_object(Bucket=name, Key=item["Key"])["Body"].read().splitlines():
            yield json.loads(line)["eventMetadata"]["inferenceId"]


def compare(platform: Platform, since: datetime) -> dict[str, Any]:
    """Have the captures since then compared, as the model's rule does for a whole day."""
    events = platform.aws("events")
    [message] = [
        json.loads(target["Input"])
        for rule in events.list_rules(NamePrefix="inference-local-drift")["Rules"]
        for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        if json.loads(target["Input"])["model"] == MODEL
    ]
    message |= {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
    invoked = platform.aws("lambda").invoke(
        FunctionName="inference-local-drift-watch", Payload=json.dumps(message)
    )
    answer: dict[str, Any] = json.loads(invoked["Payload"].read())
    assert "FunctionError" not in invoked, answer
    return answer


def alarm(platform: Platform) -> str:
    name = f"inference-local-model-{MODEL}-cpu-drift"
    [found] = platform.aws("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(found["StateValue"])


def now() -> datetime:
    """The next second: a capture tells the second in which it was taken."""
    time.sleep(1 - time.time() % 1)
    return datetime.now(UTC).replace(microsecond=0)


def test_a_stream_like_the_baseline_is_steady_and_a_shifted_one_alarms(
    platform: Platform, wines: list[dict[str, Any]], heard: Heard
) -> None:
    rows = [wine["inputs"][0]["data"] for wine in wines] * 2
    began = now()
    answers = ask(platform, rows[:256])
    request_id, told = next(iter(answers.items()))
    truth = {"request_id": request_id, "outputs": {"cultivar": [*told[:-1], "barbera-or-not"]}}
    platform.aws("s3").put_object(
        Bucket=bucket(platform.deployed.environment),
        Key=f"ground-truth/{MODEL}/test.jsonl",
        Body=json.dumps(truth).encode(),
    )

    steady = compare(platform, began)

    assert (steady["status"], steady["drifted"], steady["rows"]) == ("steady", [], 256)
    assert (steady["baseline_source"], steady["baseline_rows"]) == ("artifact", len(wines))
    [score] = steady["truth"]
    assert (score["output"], score["rows"], score["accuracy"]) == ("cultivar", 16, 15 / 16)
    assert heard.messages() == []
    assert alarm(platform) != "ALARM"

    began = now()
    ask(platform, [[*row[:PROLINE], row[PROLINE] * 2] for row in rows[:256]])
    shifted = compare(platform, began)

    assert shifted["status"] == "drifted"
    assert any(each.startswith(f"input measurements[{PROLINE}]: values") for each in shifted["drifted"])
    [event] = heard.messages()
    assert (event["source"], event["detail-type"]) == ("inference.platform", "Drift found")
    assert event["detail"] == {name: shifted[name] for name in event["detail"]}
    assert event["detail"]["model"] == MODEL
    name, _, key = shifted["report"].removeprefix("s3://").partition("/")
    report = platform.aws("s3").get_object(Bucket=name, Key=key)["Body"].read().decode()
    assert f"input measurements[{PROLINE}]" in report
    assert report.count("<svg") > 10
    until(lambda: alarm(platform) == "ALARM")

    shown = platform.inferctl("drift", MODEL)
    assert shown.returncode == 0, shown.stderr
    assert f"input measurements[{PROLINE}]: values" in shown.stdout
    assert shifted["report"] in shown.stdout


def query(platform: Platform, text: str) -> list[list[str | None]]:
    """What Athena answers in the environment's workgroup."""
    athena = platform.aws("athena")
    started = athena.start_query_execution(
        QueryString=text,
        WorkGroup="inference-local",
        QueryExecutionContext={"Database": "inference_local"},
    )["QueryExecutionId"]

    def ended() -> Any:
        status = athena.get_query_execution(QueryExecutionId=started)["QueryExecution"]["Status"]
        return status if status["State"] in ("SUCCEEDED", "FAILED") else None

    status = until(ended)
    assert status["State"] == "SUCCEEDED", f"{text}: {status.get('StateChangeReason')}"
    rows = athena.get_query_results(QueryExecutionId=started)["ResultSet"]["Rows"]
    return [[cell.get("VarCharValue") for cell in row["Data"]] for row in rows[1:]]


def test_a_capture_is_a_row_in_athena_at_once(platform: Platform) -> None:
    request_id, told = next(
        iter(
            ask(platform, [[13.5, 1.81, 2.61, 20, 96, 2.53, 2.61, 0.28, 1.66, 3.52, 1.12, 3.82, 845]]).items()
        )
    )
    saved = (
        "SELECT endpoint, hour, json_extract_scalar(capturedata.endpointoutput.data, '$.outputs[0].data[0]')"
    )
    [[endpoint, hour, first]] = query(
        platform, f"{saved} FROM captures WHERE eventmetadata.inferenceid = '{request_id}'"
    )
    assert (endpoint, first) == (f"inference-local-{MODEL}", told[0])
    assert hour in {f"{datetime.now(UTC) - timedelta(minutes=minutes):%Y/%m/%d/%H}" for minutes in (0, 1)}


def test_what_is_kept_of_a_batch_is_rows_in_athena(platform: Platform) -> None:
    wine = [13.5, 1.81, 2.61, 20, 96, 2.53, 2.61, 0.28, 1.66, 3.52, 1.12, 3.82, 845]
    asked = [
        {
            "id": f"wine-{number}",
            "inputs": [{"name": "measurements", "datatype": "FP32", "shape": [1, 13], "data": wine}],
        }
        for number in range(2)
    ]
    lines = "\n".join(map(json.dumps, asked)).encode()
    answer = platform.infer(MODEL, lines, media_type="application/jsonlines")
    assert answer.status_code == 200, answer.text
    today = f"{datetime.now(UTC):%Y/%m/%d}"
    platform.aws("s3").put_object(
        Bucket=bucket(platform.deployed.environment),
        Key=f"outputs/{MODEL}/{today}/requests.jsonl",
        Body=answer.content,
    )
    told = [json.loads(line)["outputs"][0]["data"][0] for line in answer.text.splitlines()]
    kept = "SELECT model, day, id, json_extract_scalar(outputs, '$[0].data[0]') FROM outputs"
    found = query(platform, f"{kept} WHERE model = '{MODEL}' AND day = '{today}' ORDER BY id")
    assert found == [[MODEL, today, f"wine-{number}", told[number]] for number in range(2)]


def test_saved_queries_run(platform: Platform) -> None:
    athena = platform.aws("athena")
    saved = [
        athena.get_named_query(NamedQueryId=each)["NamedQuery"]
        for each in athena.list_named_queries(WorkGroup="inference-local")["NamedQueryIds"]
    ]
    answers = {each["Name"]: query(platform, each["QueryString"]) for each in saved}
    assert [row for row in answers["drift-over-time"] if row[4] == f"measurements[{PROLINE}]"]
    assert {row[0] for row in answers["requests-by-version"]} >= {f"inference-local-{MODEL}"}
    assert {row[2] for row in answers["answers-of-batches"]} == {"cultivar"}
    assert ["barbera-or-not" in str(row[2]) for row in answers["right-or-wrong"]] == [True]


def test_what_compares_and_what_tells_have_no_right_too_many_and_none_too_few(platform: Platform) -> None:
    """After all of the above, which is every path but that of a failure."""
    roles = [role for role in rights.roles(platform) if role.startswith("inference-local-drift-")]
    assert len(roles) == 2
    unused = {
        right.sid: right.action
        for role in roles
        for right in rights.unused(platform, role)
        if right.sid not in rights.FOR_FAILURES
    }
    assert unused == {}
    assert [rights.lacking(platform, role) for role in roles] == [set(), set()]
