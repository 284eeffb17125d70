"""How far the predictions of two versions of a model are apart, by what was captured of both on live traffic.

It reads payloads, so it runs in the private network, reaches nothing but S3, and answers with numbers only.

Event: {"prefix" of captures, "version" that is new, "since" (ISO 8601), "minimum" requests}.
Answer: {"requests": {"old": n, "new": n}, "outputs": {name: {"psi", "ks"}}}; no outputs with fewer requests
of either than the minimum. Environment: DATA_BUCKET.

PSI is the population stability index over the deciles of the old version's values, for texts over its twenty
most frequent values; KS is the largest distance between the two distribution functions. An output's elements
are taken together.
"""

import base64
import json
import math
import os
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3

BEFORE = timedelta(hours=1)
"""How far back captures of the old version count."""

MOST_FILES = 2000
MOST_VALUES = 50_000
BINS = 10
MOST_CATEGORIES = 20
NEVER = 1e-4
"""The share of what did not occur: the logarithm of none is infinite."""

Outputs = dict[str, list[Any]]


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Compare."""
    since = datetime.fromisoformat(event["since"]).astimezone(UTC)
    old, new = Side(), Side()
    for record in _records(event["prefix"], since - BEFORE, datetime.now(UTC)):
        answer = _answer(record)
        if answer is None:
            continue
        side = new if answer.get("model_version") == event["version"] else old
        side.add(answer)
    counts = {"old": old.requests, "new": new.requests}
    if min(counts.values()) < event["minimum"]:
        return {"requests": counts, "outputs": {}}
    both = [name for name in old.outputs if name in new.outputs]
    return {
        "requests": counts,
        "outputs": {name: distance(old.outputs[name], new.outputs[name]) for name in both},
    }


class Side:
    """What one version predicted."""

    def __init__(self) -> None:
        self.requests = 0
        self.outputs: Outputs = defaultdict(list)

    def add(self, answer: dict[str, Any]) -> None:
        self.requests += 1
        for output in answer.get("outputs") or ():
            values = self.outputs[output["name"]]
            values.extend(_flat(output.get("data") or ())[: max(0, MOST_VALUES - len(values))])


def distance(old: Sequence[Any], new: Sequence[Any]) -> dict[str, float]:
    """PSI, and for numbers KS, between two samples; zero where one is empty."""
    if not old or not new:
        return {"psi": 0.0}
    if all(isinstance(value, int | float) for value in (*old, *new)):
        before, after = sorted(map(float, old)), sorted(map(float, new))
        edges = sorted({before[len(before) * i // BINS] for i in range(1, BINS)})
        shares = [_shares(sample, edges) for sample in (before, after)]
        return {"psi": round(_psi(*shares), 4), "ks": round(_ks(before, after), 4)}
    frequent = [value for value, _ in Counter(map(str, old)).most_common(MOST_CATEGORIES)]
    shares = [_of_categories(sample, frequent) for sample in (old, new)]
    return {"psi": round(_psi(*shares), 4)}


def _psi(old: Sequence[float], new: Sequence[float]) -> float:
    pairs = [(max(before, NEVER), max(after, NEVER)) for before, after in zip(old, new, strict=True)]
    return sum((after - before) * math.log(after / before) for before, after in pairs)


def _ks(old: Sequence[float], new: Sequence[float]) -> float:
    return max(
        abs(bisect_right(old, value) / len(old) - bisect_right(new, value) / len(new))
        for value in (*old, *new)
    )


def _shares(sample: Sequence[float], edges: Sequence[float]) -> list[float]:
    """The share of each bin: between two edges, or exactly one of them, as of a constant."""
    counts = Counter(bisect_left(edges, value) + bisect_right(edges, value) for value in sample)
    return [counts[place] / len(sample) for place in range(2 * len(edges) + 1)]


def _of_categories(sample: Sequence[Any], frequent: Sequence[str]) -> list[float]:
    counts = Counter(map(str, sample))
    known = [counts[value] / len(sample) for value in frequent]
    return [*known, 1 - sum(known)]


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list | tuple):
        return [data]
    return (
        [value for one in data for value in _flat(one)]
        if any(isinstance(x, list) for x in data)
        else list(data)
    )


def _answer(record: dict[str, Any]) -> dict[str, Any] | None:
    """The answer that was captured; None if it is not the protocol's JSON."""
    try:
        output = record["captureData"]["endpointOutput"]
        text = base64.b64decode(output["data"]) if output["encoding"] == "BASE64" else output["data"]
        document = json.loads(text)
    except (ValueError, KeyError):
        return None
    return document if isinstance(document, dict) and "model_version" in document else None


def _records(prefix: str, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """The captures of a time, at most those of MOST_FILES files, the latest."""
    s3, bucket = boto3.client("s3"), os.environ["DATA_BUCKET"]
    keys: list[str] = []
    hour = since.replace(minute=0, second=0, microsecond=0)
    while hour <= until:
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{prefix}{hour:%Y/%m/%d/%H}/"
        )
        keys += [
            entry["Key"]
            for page in pages
            for entry in page.get("Contents", ())
            if entry["LastModified"] >= since
        ]
        hour += timedelta(hours=1)

    def read(key: str) -> bytes:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    with ThreadPoolExecutor(8) as pool:
        for content in pool.map(read, keys[-MOST_FILES:]):
            for line in content.splitlines():
                if line.strip():
                    yield json.loads(line)
