"""Compares what a model is asked and answers with what it was when its version was new.

Reads payloads, so it runs inside the private network and calls nothing but S3; `drift_watch` starts it, and
tells others what it found. Environment:

    DATA_BUCKET        captures/<endpoint>/<variant>/…, ground-truth/<model>/…; and what is written here:
                       baselines/<model>/<sha256>.json, and in drift/ results/<model>/…json with everything,
                       features/<model>/…jsonl, a row of the table `drift` for each, reports/<model>/…html
    MODELS_BUCKET      <model>/<sha256>/: the manifest, and the artifact's own baseline, if it has one
    METRICS_NAMESPACE

Event:

    model, endpoint, variant, sha256    what is live
    released                            since when, ISO 8601
    since, until                        the window
    settings                            `drift:` of model.yaml

The answer is the result without the features: status, what has drifted, where the report is. A second run for
the same window draws the same captures, and writes the same result to the same place.

status: `learning` while the version's first requests are too few for a baseline, `waiting` where the window
has too few, else `steady` or `drifted`.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import boto3
import embedded_metrics
import report
import truth
from baseline import Baseline, known
from captured import Captures, Exchange, Misfit, Reader, Unread, Window
from features import Columns, Table
from judgement import Verdict, judge

from inference_runtime import manifest
from inference_runtime.manifest import Manifest

OWN_BASELINE = "baseline.jsonl"
"""A file of an artifact: a line for each request, {"inputs": […], "outputs": […]} as clients send and get."""

LONGEST_LEARNING = timedelta(days=31)
MOST_JOINED = 20_000
"""Captures that are read to be joined with ground truth, at most."""

logger = logging.getLogger()
logger.setLevel(logging.INFO)


@dataclass
class Read:
    """What was in the captures of a window."""

    table: Table
    exchanges: list[Exchange] = field(default_factory=list)
    requests: int = 0
    misfits: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    last: datetime | None = None


@dataclass
class Result:
    """One run's outcome, as it is written to S3 for people, Athena and `inferctl`."""

    model: str
    version: str
    sha256: str
    since: str
    until: str
    status: str = "learning"
    requests: int = 0
    rows: int = 0
    baseline_rows: int = 0
    baseline_source: str = ""
    drifted: list[str] = field(default_factory=list)
    misfits: float = 0.0
    left_out: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    truth: list[dict[str, Any]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    report: str = ""


class Run:
    """One comparison of one model."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.s3: Any = boto3.client("s3")
        self.data, self.models = os.environ["DATA_BUCKET"], os.environ["MODELS_BUCKET"]
        self.model, self.sha256, self.settings = event["model"], event["sha256"], event["settings"]
        self.released = datetime.fromisoformat(event["released"])
        self.window = Window(datetime.fromisoformat(event["since"]), datetime.fromisoformat(event["until"]))
        # Drawn alike each time: what is repeated says the same.
        self.random = Random(f"{self.sha256} {self.window.until}")  # noqa: S311 (a sample)
        folder = f"captures/{event['endpoint']}/{event['variant']}/"
        self.captures = Captures(self.s3, self.data, folder)
        self.artifact = f"{self.model}/{self.sha256}"
        content = self._get(self.models, f"{self.artifact}/{manifest.FILE_NAME}")
        self.manifest: Manifest = manifest.parse(content, self.sha256)
        self.reader = Reader(self.manifest)

    def result(self) -> Result:
        result = Result(
            self.model,
            self.manifest.version,
            self.sha256,
            self.window.since.isoformat(),
            self.window.until.isoformat(),
        )
        baseline, result.baseline_rows, result.baseline_source = self._baseline()
        if baseline is None:
            return result
        since = max(self.window.since, baseline.until or self.released)
        window = Window(since, self.window.until)
        result.since = since.isoformat()
        most = self.settings["max_samples"]
        read = self._read(self.captures.sample(window, most, self.random), most)
        result.requests, result.rows, result.skipped = read.requests, read.table.rows, dict(read.skipped)
        result.status = "waiting"
        result.truth = [asdict(each) for each in self._truth(window)]
        inaccurate = self._inaccurate(result.truth)
        verdict = None
        if read.table.rows >= self.settings["min_samples"]:
            columns = baseline.plan.columns(read.table)
            verdict = judge(
                baseline,
                columns,
                (read.misfits, read.requests),
                level=self.settings["false_alarm_percent"] / 100,
                psi=self.settings["psi"],
                ignore=self.settings["ignore"],
            )
            result.features = [each.to_json() for each in verdict.findings]
            result.misfits, result.left_out = verdict.misfits, verdict.left_out
        if verdict or inaccurate:
            result.drifted = [*(verdict.drifted if verdict else []), *inaccurate]
            result.status = "drifted" if result.drifted else "steady"
            self._write(result, baseline, verdict, columns if verdict else Columns())
        return result

    # The baseline

    def _baseline(self) -> tuple[Baseline | None, int, str]:
        """The baseline, if there is one or enough captures for it; its rows, and where they are from."""
        key = f"baselines/{self.artifact}.json"
        if self._exists(self.data, key):
            kept = Baseline.from_json(self._get(self.data, key))
            return kept, kept.rows, "captures" if kept.until else "artifact"
        source = "artifact" if OWN_BASELINE in self.manifest.files else "captures"
        wanted = self.settings["baseline_samples"]
        read = self._own() if source == "artifact" else self._first(wanted)
        if source == "captures" and read.table.rows < wanted:
            return None, read.table.rows, source
        learnt = Baseline.learn(read.table, self.manifest.version, read.last, self.settings["categorical"])
        self._put(key, learnt.to_json(), "application/json")
        return learnt, learnt.rows, source

    def _own(self) -> Read:
        lines = self._get(self.models, f"{self.artifact}/{OWN_BASELINE}").splitlines()
        return self._read((self._as_record(line) for line in lines), len(lines) * 16)

    def _as_record(self, line: bytes) -> dict[str, Any]:
        """A line of the artifact's own baseline, as if it had been captured."""
        document = json.loads(line)
        answer = {"model_version": self.manifest.version, "outputs": document.get("outputs", [])}
        sides = (("endpointInput", {"inputs": document["inputs"]}), ("endpointOutput", answer))
        return {
            "captureData": {name: {"data": json.dumps(side), "encoding": "JSON"} for name, side in sides},
            "eventMetadata": {},
        }

    def _first(self, wanted: int) -> Read:
        """The version's first captures."""
        until = min(self.window.until, self.released + LONGEST_LEARNING)
        return self._read(self.captures.in_order(Window(self.released, until)), wanted)

    # Reading

    def _read(self, records: Iterable[dict[str, Any]], most: int, *, keep: bool = False) -> Read:
        """The rows of records, up to about `most` of them."""
        read = Read(Table(self.manifest, self.random))
        for record in records:
            try:
                exchanges = self.reader.read(record)
            except Misfit as misfit:
                read.requests += 1
                read.misfits += 1
                read.skipped[f"misfit: {misfit}"] += 1
                continue
            except Unread as form:
                read.skipped[f"not read: {form}"] += 1
                continue
            if exchanges is None:
                read.skipped["of another version"] += 1
                continue
            read.requests += 1
            for exchange in exchanges:
                if keep:
                    read.exchanges.append(exchange)
                else:
                    read.table.add(exchange)
            moment = record["eventMetadata"].get("inferenceTime")
            if moment:
                # Captures tell the second; the next one is the first that was not looked at.
                after = datetime.fromisoformat(moment) + timedelta(seconds=1)
                read.last = max(read.last or after, after)
            if read.table.rows >= most:
                break
        return read

    # Ground truth

    def _truth(self, window: Window) -> list[truth.Score]:
        since = window.until - timedelta(hours=self.settings["truth_hours"])
        said = truth.read(self.s3, self.data, f"ground-truth/{self.model}/", since)
        if not said:
            return []
        records = self.captures.sample(Window(since, window.until), MOST_JOINED, self.random)
        joined = [record for record in records if record["eventMetadata"].get("inferenceId") in said]
        read = self._read(joined, MOST_JOINED, keep=True)
        datatypes = {spec.name: spec.datatype for spec in self.manifest.outputs}
        return truth.score(read.exchanges, said, datatypes)

    def _inaccurate(self, scores: list[dict[str, Any]]) -> list[str]:
        least = self.settings.get("min_accuracy_percent")
        if least is None:
            return []
        return [
            f"output {score['output']}: right in {score['accuracy']:.1%} of {score['rows']} rows"
            for score in scores
            # The whole interval must lie below: of few rows nothing is known.
            if score["high"] is not None and 100 * score["high"] < least
        ]

    # Results

    def _write(self, result: Result, baseline: Baseline, verdict: Verdict | None, columns: Columns) -> None:
        until = self.window.until
        name = f"{self.model}/{until:%Y/%m/%d}/{until:%H%M%S}-{result.version}"
        result.report = f"s3://{self.data}/drift/reports/{name}.html"
        facts = [
            ("", f"{self.model} {result.version}"),
            (
                "Compared",
                f"{result.since} to {result.until}: {result.rows} rows of {result.requests} requests",
            ),
            ("Baseline", f"{result.baseline_rows} rows, from {result.baseline_source}"),
            ("Artifact", self.sha256),
            ("Requests that do not fit the signature", f"{result.misfits:.2%}"),
            *((f"Not looked at: {why}", str(count)) for why, count in sorted(result.skipped.items())),
            *((f"Ground truth: {each['output']}", _told(each)) for each in result.truth),
        ]
        if result.left_out:
            facts.append(("Features left out", str(result.left_out)))
        findings = verdict.findings if verdict else []
        html = report.page(facts, result.drifted, findings, baseline.features, known(columns))
        self._put(f"drift/reports/{name}.html", html.encode(), "text/html; charset=utf-8")
        self._put(f"drift/results/{name}.json", json.dumps(asdict(result)).encode(), "application/json")
        about = {
            "version": result.version,
            "sha256": self.sha256,
            "since": result.since,
            "until": result.until,
        }
        lines = "".join(json.dumps(about | each) + "\n" for each in result.features)
        self._put(f"drift/features/{name}.jsonl", lines.encode(), "application/jsonlines")

    # S3

    def _exists(self, bucket: str, key: str) -> bool:
        # Listed: S3 says "denied" of what is not there.
        found = self.s3.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        return bool(found.get("Contents"))

    def _get(self, bucket: str, key: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def _put(self, key: str, body: bytes, content_type: str) -> None:
        self.s3.put_object(Bucket=self.data, Key=key, Body=body, ContentType=content_type)


def _told(score: dict[str, Any]) -> str:
    if score["accuracy"] is None:
        return f"mean absolute error {score['mean_absolute_error']:.4g} of {score['rows']} values"
    return (
        f"{score['accuracy']:.1%} right ({score['low']:.1%} to {score['high']:.1%}) of {score['rows']} rows"
    )


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    result = Run(event).result()
    _publish(result)
    answer = asdict(result)
    del answer["features"]
    logger.info("%s: %s", result.model, json.dumps(answer))
    return answer


def _publish(result: Result) -> None:
    metrics: dict[str, tuple[float, str]] = {"DriftRows": (result.rows, "Count")}
    if result.status in ("steady", "drifted"):
        metrics["Drifted"] = (len(result.drifted), "Count")
        metrics["DriftMisfits"] = (100 * result.misfits, "Percent")
        metrics["DriftLargestPsi"] = (max((each["psi"] for each in result.features), default=0), "None")
    right = [each["accuracy"] for each in result.truth if each["accuracy"] is not None]
    if right:
        metrics["Accuracy"] = (100 * min(right), "Percent")
    embedded_metrics.publish(metrics, Model=result.model)
