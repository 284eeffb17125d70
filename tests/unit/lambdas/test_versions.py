"""How far the predictions of two versions are apart: an event in, numbers out, over captures in S3."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from inference_runtime import manifest
from inference_runtime.capture import Exchange, record
from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws

PREFIX = "captures/inference-test-tiny/AllTraffic/"
VERSIONS = imported("drift", "versions")


class Account:
    """The two buckets, with two versions of a model and what was captured of both in the last minutes."""

    def __init__(self, outputs: Sequence[Sequence[Any]] = (("y", "FP64", [-1]),)) -> None:
        self.s3 = boto3.client("s3")
        for bucket in ("data", "models"):
            self.s3.create_bucket(Bucket=bucket)
        self.shifted = datetime.now(UTC) - timedelta(minutes=5)
        self.sha256 = {which: self.artifact(version, outputs) for which, version in VERSION.items()}

    def artifact(self, version: str, outputs: Sequence[Sequence[Any]]) -> str:
        document = {
            "schema": 1, "name": "tiny", "version": version, "platform": manifest.PYTHON, "model": None,
            "handler": "handler.py", "files": {"handler.py": {"sha256": "0" * 64, "size": 1}},
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
            "outputs": [dict(zip(("name", "datatype", "shape"), one, strict=True)) for one in outputs],
        }  # fmt: skip
        content = json.dumps(document).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        self.s3.put_object(Bucket="models", Key=f"tiny/{sha256}/manifest.json", Body=content)
        return sha256

    def capture(
        self, which: str, values: Sequence[Any], *, minutes: float = 1, datatype: str = "FP64"
    ) -> None:
        """One answer for each value, so many minutes after the new version got its first request."""
        moment, lines = self.shifted + timedelta(minutes=minutes), []
        for value in values:
            tensor = {"name": "y", "datatype": datatype, "shape": [1], "data": [value]}
            answer = json.dumps({"model_version": VERSION[which], "outputs": [tensor]}).encode()
            lines.append(json.dumps(record(Exchange("id", b'{"inputs":[]}', answer, moment))))
        key = f"{PREFIX}{moment:%Y/%m/%d/%H/%M-%S}-{which}.jsonl"
        self.s3.put_object(Bucket="data", Key=key, Body="\n".join(lines).encode())

    def compared(self, minimum: int = 50) -> dict[str, Any]:
        found: dict[str, Any] = VERSIONS.handler(
            {
                "prefix": PREFIX,
                "model": "tiny",
                **self.sha256,
                "since": self.shifted.isoformat(),
                "minimum": minimum,
                "psi": 0.25,
            },
            None,
        )
        return found


VERSION = {"old": "1.0.0", "new": "2.0.0"}


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with mocked_aws(monkeypatch, DATA_BUCKET="data", MODELS_BUCKET="models"):
        yield


def normal(mean: float, count: int) -> list[float]:
    generator = random.Random(mean)  # noqa: S311 (no secret)
    return [generator.gauss(mean, 1) for _ in range(count)]


@pytest.mark.parametrize(
    ("old", "new", "shifted"),
    [
        pytest.param(normal(0, 2000), normal(0.0001, 300), False, id="numbers of one distribution"),
        pytest.param(normal(0, 50), normal(0.0001, 50), False, id="few numbers of one distribution"),
        pytest.param(normal(0, 2000), normal(1, 300), True, id="numbers a standard deviation apart"),
        pytest.param(["cat", "dog"] * 250, ["dog", "cat"] * 200, False, id="texts as often as before"),
        pytest.param(["cat"] * 450 + ["dog"] * 50, ["cat"] * 50 + ["dog"] * 450, True, id="other texts"),
        pytest.param(["cat"] * 500, ["bird"] * 500, True, id="texts that were never answered"),
        pytest.param([1.0] * 500, [1.0] * 450, False, id="a constant"),
        pytest.param([1.0] * 500, [2.0] * 450, True, id="another constant"),
    ],
)
def test_what_shifts(old: list[Any], new: list[Any], shifted: bool) -> None:
    datatype = "BYTES" if isinstance(old[0], str) else "FP64"
    account = Account([("y", datatype, [-1])])
    account.capture("old", old, datatype=datatype)
    account.capture("new", new, datatype=datatype)
    found = account.compared()
    assert found["requests"] == {"old": len(old), "new": len(new)}
    assert found["outputs"].keys() == {"y"}
    assert found["shifted"] == (["y"] if shifted else [])
    # What the history keeps is no smaller than DynamoDB's numbers.
    p_value = found["outputs"]["y"]["p_value"]
    assert p_value == 0 or p_value >= 1e-6


def test_the_old_version_counts_since_an_hour_before_and_the_new_one_since_its_first_request() -> None:
    account = Account()
    account.capture("old", normal(0, 40), minutes=-30)
    account.capture("old", normal(1, 9), minutes=-61)
    account.capture("old", normal(0, 30))
    account.capture("new", normal(5, 60))
    found = account.compared(minimum=60)
    assert (found["requests"], found["shifted"]) == ({"old": 70, "new": 60}, ["y"])


def test_too_few_answers_say_nothing() -> None:
    account = Account()
    account.capture("old", normal(0, 500))
    account.capture("new", normal(9, 49))
    assert account.compared() == {"requests": {"old": 500, "new": 49}, "outputs": {}, "shifted": []}


def test_an_output_that_a_breaking_version_answers_in_another_form_is_not_compared() -> None:
    account = Account()
    account.sha256["new"] = account.artifact(VERSION["new"], [("y", "BYTES", [-1])])
    account.capture("old", normal(0, 100))
    account.capture("new", ["cat"] * 100, datatype="BYTES")
    assert account.compared() == {"requests": {"old": 100, "new": 100}, "outputs": {}, "shifted": []}
