"""What the drift function finds in captures, through its own door: an event in, files and an answer out.

The captures are written by the code that writes them in the function of a CPU model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from inference_runtime.capture import ANSWERS, Exchange, record
from tests.unit.lambdas.function import imported
from tests.unit.memory_s3 import MemoryS3

DRIFT = imported("drift")

RELEASED = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS: dict[str, Any] = {
    "baseline_samples": 400,
    "min_samples": 100,
    "max_samples": 2000,
    "false_alarm_percent": 1.0,
    "psi": 0.2,
    "categorical": [],
    "ignore": [],
    "truth_hours": 168,
}

Make = Callable[[np.random.Generator], dict[str, Any]]


def tensor(name: str, datatype: str, values: list[Any], width: int | None = None) -> dict[str, Any]:
    shape = [len(values)] if width is None else [len(values), width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": values}


def ordinary(random: np.random.Generator) -> dict[str, Any]:
    """What the model is asked and answers when all is well: a row of every kind of tensor."""
    label = str(random.choice(["cat", "dog", "fish"], p=[0.6, 0.3, 0.1]))
    return {
        "inputs": [
            tensor("size", "FP32", [random.normal(size=3).tolist()], 3),
            tensor("doors", "INT32", [int(random.integers(1, 5))]),
            tensor("text", "BYTES", ["word " * int(random.integers(5, 15)) + str(random.random())]),
            tensor("embedding", "FP32", [random.normal(size=80).tolist()], 80),
        ],
        "outputs": [tensor("label", "BYTES", [label]), tensor("score", "FP64", [random.random()])],
    }


def changed(make: Make, side: str, name: str, change: Callable[[Any], Any]) -> Make:
    """The same, with one tensor's first row passed through `change`."""

    def made(random: np.random.Generator) -> dict[str, Any]:
        document = make(random)
        found = next(each for each in document[side] if each["name"] == name)
        found["data"] = [change(found["data"][0])]
        return document

    return made


class Account:
    """The two buckets, with a model's artifact, and the function over them."""

    def __init__(self, s3: MemoryS3, baseline: list[dict[str, Any]] | None = None, *, seed: int = 7) -> None:
        self.s3 = s3
        self.random = np.random.default_rng(seed)
        self.ids = 1000 * seed
        files: dict[str, Any] = {"handler.py": {"sha256": "0" * 64, "size": 1}}
        own = "".join(json.dumps(each) + "\n" for each in baseline or [])
        if baseline:
            files["baseline.jsonl"] = {"sha256": "1" * 64, "size": len(own)}
        signature = {
            "inputs": [("size", "FP32", [-1, 3]), ("doors", "INT32", [-1]), ("text", "BYTES", [-1]),
                       ("embedding", "FP32", [-1, 80])],
            "outputs": [("label", "BYTES", [-1]), ("score", "FP64", [-1])],
        }  # fmt: skip
        document = {
            "schema": 1, "name": "pets", "version": "2.0.0", "platform": DRIFT.manifest.PYTHON, "model": None,
            "handler": "handler.py", "files": files,
            **{side: [dict(zip(("name", "datatype", "shape"), each, strict=True)) for each in specs]
               for side, specs in signature.items()},
        }  # fmt: skip
        content = json.dumps(document).encode()
        self.sha256 = hashlib.sha256(content).hexdigest()
        folder = f"pets/{self.sha256}"
        self.s3.put_object(Bucket="models", Key=f"{folder}/manifest.json", Body=content)
        if baseline:
            self.s3.put_object(Bucket="models", Key=f"{folder}/baseline.jsonl", Body=own.encode())

    def capture(
        self, make: Make, count: int, day: float, *, version: str = "2.0.0", **options: Any
    ) -> list[str]:
        """Capture `count` exchanges, on a day after the release; returns their request ids."""
        moment, lines, ids = RELEASED + timedelta(days=day), [], []
        for _ in range(count):
            document = make(self.random)
            self.ids += 1
            ids.append(f"request-{self.ids}")
            asked = json.dumps({"inputs": document["inputs"]}).encode()
            answered = json.dumps({"model_version": version, "outputs": document["outputs"]}).encode()
            lines.append(json.dumps(record(Exchange(ids[-1], asked, answered, moment), **options)))
        self.put(moment, lines)
        return ids

    def put(self, moment: datetime, lines: list[str]) -> None:
        key = f"captures/inference-test-pets/AllTraffic/{moment:%Y/%m/%d/%H/%M-%S}-{self.ids}.jsonl"
        self.s3.put_object(Bucket="data", Key=key, Body="\n".join(lines).encode())

    def run(self, day: float = 2, **settings: Any) -> dict[str, Any]:
        """Compare the day before `day` days after the release."""
        until = RELEASED + timedelta(days=day)
        answer: dict[str, Any] = DRIFT.handler(
            {
                "model": "pets",
                "endpoint": "inference-test-pets",
                "variant": "AllTraffic",
                "sha256": self.sha256,
                "released": RELEASED.isoformat(),
                "since": (until - timedelta(days=1)).isoformat(),
                "until": until.isoformat(),
                "settings": SETTINGS | settings,
            },
            None,
        )
        return answer

    def keys(self, prefix: str) -> list[str]:
        return [
            item["Key"] for item in self.s3.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])
        ]

    def read(self, key: str) -> str:
        content: bytes = self.s3.get_object(Bucket="data", Key=key)["Body"].read()
        return content.decode()


@pytest.fixture(scope="module")
def variables() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_BUCKET", "data")
        patch.setenv("MODELS_BUCKET", "models")
        patch.setenv("METRICS_NAMESPACE", "Inference/test")
        yield patch


@pytest.fixture
def s3(variables: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    stored = MemoryS3()
    monkeypatch.setattr(DRIFT, "boto3", stored)
    return stored


@pytest.fixture
def new(s3: MemoryS3) -> Account:
    """An account where the version's first requests were ordinary, and nothing was compared yet."""
    account = Account(s3)
    account.capture(ordinary, 400, 0)
    return account


@pytest.fixture(scope="module")
def compared(variables: pytest.MonkeyPatch) -> MemoryS3:
    """What is stored once such an account has its baseline."""
    stored = MemoryS3()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRIFT, "boto3", stored)
        account = Account(stored)
        account.capture(ordinary, 400, 0)
        assert account.run()["status"] == "waiting"
    return stored


@pytest.fixture
def account(s3: MemoryS3, compared: MemoryS3) -> Account:
    """An account that has its baseline of ordinary requests."""
    s3.take(compared)
    return Account(s3, seed=8)


def drifted(account: Account, make: Make, count: int = 300, **settings: Any) -> list[str]:
    """What has drifted once the model is asked what `make` makes."""
    account.capture(make, count, 1.5)
    answer = account.run(**settings)
    assert answer["status"] == ("drifted" if answer["drifted"] else "steady")
    found: list[str] = answer["drifted"]
    return found


class TestWhatIsFound:
    def test_nothing_where_nothing_changed(self, account: Account) -> None:
        assert drifted(account, ordinary) == []

    def test_a_column_whose_numbers_moved(self, account: Account) -> None:
        moved = changed(ordinary, "inputs", "size", lambda row: [row[0], row[1] + 1, row[2]])
        assert drifted(account, moved) == ["input size[1]: values"]

    def test_texts_that_grew(self, account: Account) -> None:
        longer = changed(ordinary, "inputs", "text", lambda text: text + text)
        assert drifted(account, longer)[0].startswith("input text:length: values")

    def test_vectors_that_turned(self, account: Account) -> None:
        turned = changed(ordinary, "inputs", "embedding", lambda row: [value + 1 for value in row])
        found = drifted(account, turned)
        assert found
        assert all(each.startswith("input embedding:") for each in found)

    def test_predictions_of_another_mixture(self, account: Account) -> None:
        rarer = changed(ordinary, "outputs", "label", lambda label: "fish" if label == "cat" else label)
        assert drifted(account, rarer) == ["output label: values"]

    def test_a_category_that_was_never_there(self, account: Account) -> None:
        def rename(label: str) -> str:
            return "hamster" if label == "fish" else label

        [found] = drifted(account, changed(ordinary, "outputs", "label", rename))
        assert found.startswith("output label: ")
        assert found.endswith("values never seen before")

    def test_values_that_are_missing(self, account: Account) -> None:
        random = np.random.default_rng(3)
        gone = changed(ordinary, "outputs", "score", lambda score: None if random.random() < 0.2 else score)
        assert drifted(account, gone) == ["output score: missing values"]

    def test_requests_that_do_not_fit_the_signature(self, account: Account) -> None:
        def misshapen(random: np.random.Generator) -> dict[str, Any]:
            document = ordinary(random)
            if random.random() < 0.1:
                document["inputs"][1]["datatype"] = "FP32"
            return document

        assert drifted(account, misshapen) == ["requests: do not fit the signature"]

    def test_integers_named_as_categories_are_compared_as_such(self, s3: MemoryS3) -> None:
        account = Account(s3)

        def codes(random: np.random.Generator) -> dict[str, Any]:
            document = ordinary(random)
            document["inputs"][1]["data"] = [int(random.choice([10, 11, 50, 51] * 4 + list(range(60, 80))))]
            return document

        account.capture(codes, 400, 0)
        account.capture(codes, 300, 1.5)
        account.run(categorical=["doors"])
        [result] = account.keys("drift/results/")
        kinds = {each["name"]: each["kind"] for each in json.loads(account.read(result))["features"]}
        assert kinds["doors"] == "category"
        assert kinds["size[0]"] == "numeric"

    def test_nothing_in_what_is_ignored(self, account: Account) -> None:
        moved = changed(ordinary, "inputs", "size", lambda row: [value + 5 for value in row])
        assert drifted(account, moved, ignore=["size"]) == []

    def test_a_shift_that_is_certain_but_smaller_than_asked_for_is_none(self, account: Account) -> None:
        moved = changed(ordinary, "inputs", "size", lambda row: [row[0], row[1] + 0.6, row[2]])
        assert drifted(account, moved, count=600, psi=0.2) == ["input size[1]: values"]
        assert account.run(psi=2.0)["status"] == "steady"


class TestTheBaseline:
    def test_is_the_first_requests_of_the_version_and_is_made_once(self, new: Account) -> None:
        assert new.run()["status"] == "waiting"
        [key] = new.keys("baselines/")
        assert key == f"baselines/pets/{new.sha256}.json"
        before = new.read(key)
        new.capture(changed(ordinary, "inputs", "size", lambda row: [9, 9, 9]), 400, 0)
        assert drifted(new, ordinary) == []
        assert new.read(key) == before

    def test_holds_no_row_of_a_request(self, account: Account) -> None:
        known = json.loads(account.read(account.keys("baselines/")[0]))["features"]
        for each in known:
            assert each["values"] == sorted(each["values"])
        assert "word" not in json.dumps(known)

    def test_is_learnt_until_there_are_enough(self, s3: MemoryS3) -> None:
        account = Account(s3)
        account.capture(ordinary, 399, 0)
        answer = account.run()
        assert (answer["status"], answer["baseline_rows"]) == ("learning", 399)
        assert account.keys("baselines/") == []

    def test_is_not_compared_with_itself(self, account: Account) -> None:
        answer = account.run(day=0.5)
        assert (answer["status"], answer["rows"]) == ("waiting", 0)

    def test_may_come_with_the_artifact(self, s3: MemoryS3) -> None:
        random = np.random.default_rng(1)
        account = Account(s3, [ordinary(random) for _ in range(300)])
        moved = changed(ordinary, "inputs", "size", lambda row: [row[0], row[1] + 1, row[2]])
        account.capture(moved, 300, 0.5)
        answer = account.run(day=1)
        assert (answer["baseline_source"], answer["baseline_rows"]) == ("artifact", 300)
        assert answer["drifted"] == ["input size[1]: values"]


class TestWhatIsLookedAt:
    def test_no_other_version(self, account: Account) -> None:
        account.capture(ordinary, 100, 1.2)
        account.capture(changed(ordinary, "inputs", "size", lambda row: [5, 5, 5]), 300, 1.4, version="3.0.0")
        answer = account.run()
        assert (answer["status"], answer["rows"]) == ("steady", 100)
        assert answer["skipped"] == {"of another version": 300}

    def test_nothing_before_or_after_the_window(self, account: Account) -> None:
        for day in (0.9, 2.0):
            account.capture(changed(ordinary, "inputs", "size", lambda row: [5, 5, 5]), 300, day)
        account.capture(ordinary, 150, 1.0)
        assert (account.run()["rows"], account.run()["status"]) == (150, "steady")

    def test_too_few_rows_are_not_judged(self, account: Account) -> None:
        account.capture(changed(ordinary, "inputs", "size", lambda row: [5, 5, 5]), 99, 1.5)
        answer = account.run()
        assert (answer["status"], answer["report"]) == ("waiting", "")
        assert account.keys("drift/") == []

    def test_no_redacted_tensor(self, s3: MemoryS3) -> None:
        account = Account(s3)
        account.capture(ordinary, 400, 0, redact=["text"])
        account.capture(changed(ordinary, "inputs", "text", lambda text: "x"), 300, 1.5, redact=["text"])
        assert account.run()["status"] == "steady"

    def test_answers_alone_where_requests_are_not_kept(self, s3: MemoryS3) -> None:
        account = Account(s3)
        account.capture(ordinary, 400, 0, keep=ANSWERS)
        worse = changed(ordinary, "outputs", "score", lambda score: score / 2)
        account.capture(worse, 300, 1.5, keep=ANSWERS)
        assert account.run()["drifted"] == ["output score: values"]

    def test_of_a_batch_no_more_than_some_rows(self, account: Account) -> None:
        def batch(random: np.random.Generator) -> dict[str, Any]:
            rows = [ordinary(random) for _ in range(40)]
            return {
                side: [
                    tensor(
                        each["name"],
                        each["datatype"],
                        [row[side][number]["data"][0] for row in rows],
                        each["shape"][1] if len(each["shape"]) > 1 else None,
                    )
                    for number, each in enumerate(rows[0][side])
                ]
                for side in ("inputs", "outputs")
            }

        account.capture(batch, 10, 1.5)
        answer = account.run()
        assert (answer["requests"], answer["rows"], answer["status"]) == (10, 160, "steady")

    def test_garbage_is_counted_and_ends_nothing(self, account: Account) -> None:
        account.capture(ordinary, 300, 1.5)
        asked = {"data": "{", "encoding": "JSON", "observedContentType": "application/json"}
        for data in ("[]", "{", '{"outputs": 3, "model_version": "2.0.0"}', "9" * 5000):
            moment = RELEASED + timedelta(days=1.5)
            line = {
                "captureData": {"endpointInput": asked, "endpointOutput": asked | {"data": data}},
                "eventMetadata": {"inferenceTime": f"{moment:%Y-%m-%dT%H:%M:%SZ}"},
            }
            account.ids += 1
            account.put(moment, [json.dumps(line)])
        answer = account.run()
        assert (answer["status"], answer["requests"]) == ("steady", 304)
        assert answer["misfits"] == pytest.approx(4 / 304)


class TestGroundTruth:
    def say(self, account: Account, lines: list[Any]) -> None:
        text = "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
        account.s3.put_object(Bucket="data", Key="ground-truth/pets/today.jsonl", Body=text.encode())

    @pytest.fixture
    def answered(self, account: Account) -> list[str]:
        return account.capture(changed(ordinary, "outputs", "label", lambda label: "cat"), 100, 1.5)

    def truths(self, ids: list[str], wrong: int) -> list[Any]:
        return [
            {"request_id": each, "outputs": {"label": ["dog" if number < wrong else "cat"], "score": [0.5]}}
            for number, each in enumerate(ids)
        ]

    def test_says_how_often_the_model_was_right(self, account: Account, answered: list[str]) -> None:
        self.say(account, self.truths(answered, 20))
        label, score = account.run()["truth"]
        assert (label["output"], label["rows"], label["accuracy"]) == ("label", 100, 0.8)
        assert label["low"] < 0.8 < label["high"]
        assert score["mean_absolute_error"] == pytest.approx(0.25, abs=0.05)

    def test_an_accuracy_that_is_surely_too_low_counts_as_drift(
        self, account: Account, answered: list[str]
    ) -> None:
        self.say(account, self.truths(answered, 20))
        ignore = {"ignore": ["label"]}
        assert account.run(min_accuracy_percent=85.0, **ignore)["status"] == "steady"
        assert account.run(min_accuracy_percent=95.0, **ignore)["drifted"] == [
            "output label: right in 80.0% of 100 rows"
        ]

    def test_what_is_no_truth_or_of_no_request_is_left_out(
        self, account: Account, answered: list[str]
    ) -> None:
        lines = ["{", "[]", {"request_id": "unknown", "outputs": {"label": ["cat"]}}]
        lines += [{"request_id": answered[0], "outputs": {"label": ["cat", "dog"], "nothing": [1]}}]
        self.say(account, [*lines, *self.truths(answered[1:11], 0), {"request_id": 5}])
        [label, _] = account.run()["truth"]
        assert (label["rows"], label["accuracy"]) == (10, 1.0)


class TestTheResult:
    def test_is_written_for_machines_and_for_people(
        self, account: Account, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert drifted(account, changed(ordinary, "inputs", "size", lambda row: [4, *row[1:]]))
        stem = "pets/2026/03/03/120000-2.0.0"
        assert account.keys("drift/") == [
            f"drift/features/{stem}.jsonl",
            f"drift/reports/{stem}.html",
            f"drift/results/{stem}.json",
        ]
        result = json.loads(account.read(f"drift/results/{stem}.json"))
        assert result["report"] == f"s3://data/drift/reports/{stem}.html"
        rows = [json.loads(line) for line in account.read(f"drift/features/{stem}.jsonl").splitlines()]
        assert [row["name"] for row in rows] == [each["name"] for each in result["features"]]
        [metric] = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
        assert metric["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Inference/test"
        assert (metric["Model"], metric["Drifted"], metric["DriftRows"]) == ("pets", 1, 300)
        assert metric["DriftLargestPsi"] > 1

    def test_says_the_same_again(self, account: Account) -> None:
        account.capture(ordinary, 400, 1.5)
        first = account.run(max_samples=150)
        before = {key: account.read(key) for key in account.keys("drift/")}
        assert account.run(max_samples=150) == first
        assert {key: account.read(key) for key in account.keys("drift/")} == before

    def test_a_hostile_category_is_only_text_in_the_report(self, account: Account) -> None:
        evil = "<script>alert(1)</script>"
        assert drifted(account, changed(ordinary, "outputs", "label", lambda label: evil))
        [key] = account.keys("drift/reports/")
        html = account.read(key)
        assert "<script" not in html
        assert "&lt;script" in html
        assert "default-src 'none'" in html
        assert "http" not in html.replace("http-equiv", "")
