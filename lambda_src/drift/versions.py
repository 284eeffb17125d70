"""How far the predictions of two versions of a model are apart, by what was captured of both on live traffic.

The second entry point of the package of `drift`, with the same features and tests: the old version's captures
are the baseline, the new one's the window. It reads payloads too, so it runs in the private network, reaches
nothing but S3, and answers with numbers only.

Event: {"prefix" of captures, "model", "old" and "new" (SHA-256 of the artifacts), "since" (ISO 8601: when the
new one got its first request), "minimum" requests of either, "psi" from which on a shift is large}.
Answer: {"requests": {"old": n, "new": n}, "outputs": {feature: {"test", "p_value", "psi"}}, "shifted":
[feature]}; no outputs with fewer requests of either than the minimum, or of what both do not have alike.

Environment: DATA_BUCKET, MODELS_BUCKET.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import boto3
from baseline import Baseline
from captured import Captures, Exchange, Misfit, Reader, Unread, Window
from features import Table
from judgement import judge

from inference_runtime import manifest
from inference_runtime.manifest import Manifest

BEFORE = timedelta(hours=1)
"""How far back captures of the old version count."""

MOST_FILES = 2000
"""Of the time before, and again of the time since."""

LEVEL = 0.001
"""The chance of calling two samples of one distribution different: small, since a release asks again and
again for as long as it watches.
"""


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Compare."""
    s3 = boto3.client("s3")
    old, new = (_manifest(s3, f"{event['model']}/{event[which]}") for which in ("old", "new"))
    captures = Captures(s3, os.environ["DATA_BUCKET"], event["prefix"])
    since = datetime.fromisoformat(event["since"]).astimezone(UTC)
    # Drawn alike each time: what is repeated says the same.
    random = Random(f"{event['new']} {event['since']}")  # noqa: S311 (a sample)
    before = captures.sample(Window(since - BEFORE, since), MOST_FILES, random)
    during = captures.sample(Window(since, datetime.now(UTC)), MOST_FILES, random)
    answers = {"old": _answers(old, [*before, *during]), "new": _answers(new, during)}
    counts = {which: len(found) for which, found in answers.items()}
    if min(counts.values()) < event["minimum"]:
        return {"requests": counts, "outputs": {}, "shifted": []}
    # A tensor that a breaking version answers in another form is not compared.
    both = replace(old, inputs=(), outputs=tuple(spec for spec in old.outputs if spec in new.outputs))
    baseline = Baseline.learn(_table(both, answers["old"], random), old.version, None, [])
    columns = baseline.plan.columns(_table(both, answers["new"], random))
    verdict = judge(baseline, columns, (0, counts["new"]), level=LEVEL, psi=event["psi"])
    # Rounded: DynamoDB, which keeps them, takes no number as near to zero as a p-value may be.
    return {
        "requests": counts,
        "outputs": {
            found.name: {
                "test": found.test,
                "p_value": round(found.p_value, 6),
                "psi": round(found.psi, 4),
            }
            for found in verdict.findings
        },
        "shifted": [found.name for found in verdict.findings if "values" in found.drifted],
    }


def _manifest(s3: Any, folder: str) -> Manifest:
    key = f"{folder}/{manifest.FILE_NAME}"
    content = s3.get_object(Bucket=os.environ["MODELS_BUCKET"], Key=key)["Body"].read()
    return manifest.parse(content, folder.rpartition("/")[2])


def _answers(version: Manifest, records: Iterable[dict[str, Any]]) -> list[Exchange]:
    """What the version answered; what is no answer of its signature is none."""
    reader, found = Reader(version), []
    for record in records:
        answered = record["captureData"].get("endpointOutput")
        if answered:
            try:
                found += reader.read({**record, "captureData": {"endpointOutput": answered}}) or []
            except (Misfit, Unread):
                continue
    return found


def _table(signature: Manifest, answers: Iterable[Exchange], random: Random) -> Table:
    table, names = Table(signature, random), {spec.name for spec in signature.outputs}
    for answer in answers:
        outputs = {name: array for name, array in answer.outputs.items() if name in names}
        table.add(replace(answer, outputs=outputs))
    return table
