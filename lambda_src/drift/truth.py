"""How often a model was right, where somebody has said what was: ground truth, joined on the request's id.

    s3://<bucket>/ground-truth/<model>/<any name>.jsonl
    {"request_id": "<x-request-id>", "outputs": {"cultivar": ["barolo", "grignolino"]}}

A line holds the true values of one request's outputs, flat and in the order of its rows; null where it is not
known. Texts, booleans and integers are right or wrong; of floats the mean absolute error is taken.
"""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import shift
from captured import Exchange

logger = logging.getLogger()

MOST_FILES = 1000
FLOATS = ("FP16", "BF16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Score:
    """Of one output: the share of its `rows` that was right, with its 95 % interval, or the mean error."""

    output: str
    rows: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    mean_absolute_error: float | None = None


def read(s3: Any, bucket: str, prefix: str, since: datetime) -> dict[str, dict[str, list[Any]]]:
    """What was said since a moment: true outputs by request id; of two lines about a request the later file's
    holds. Lines that are no such document are left out, and counted in the log.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    files = [item for page in pages for item in page.get("Contents", ()) if item["LastModified"] >= since]
    files.sort(key=lambda item: item["LastModified"])
    said: dict[str, dict[str, list[Any]]] = {}
    bad = 0
    for item in files[-MOST_FILES:]:
        for line in s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read().splitlines():
            try:
                document = json.loads(line)
                outputs = {str(name): list(values) for name, values in document["outputs"].items()}
                said[str(document["request_id"])] = outputs
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                bad += 1
    if bad:
        logger.warning("%d lines below %s are no ground truth", bad, prefix)
    return said


def score(
    exchanges: Iterable[Exchange], said: dict[str, dict[str, list[Any]]], datatypes: dict[str, str]
) -> list[Score]:
    """One score for each output that somebody has said the truth about."""
    right: dict[str, list[bool]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    for exchange in exchanges:
        for name, true in said.get(exchange.request_id, {}).items():
            given = exchange.outputs.get(name)
            if given is None or given.size != len(true):
                continue
            for answer, truth in zip(given.ravel(), true, strict=True):
                if truth is None:
                    continue
                if datatypes[name] in FLOATS:
                    errors[name].extend(_distance(answer, truth))
                else:
                    right[name].append(_same(answer, truth))
    scores = []
    for name, each in sorted(right.items()):
        low, high = shift.interval(sum(each), len(each))
        scores.append(Score(name, len(each), sum(each) / len(each), low, high))
    for name, distances in sorted(errors.items()):
        if distances:
            mean = sum(distances) / len(distances)
            scores.append(Score(name, len(distances), mean_absolute_error=mean))
    return scores


def _same(answer: Any, truth: Any) -> bool:
    if isinstance(answer, bytes):
        answer = answer.decode("utf-8", "replace")
    return bool(answer == truth)


def _distance(answer: float, truth: Any) -> list[float]:
    """One error; none where one of the two is no number."""
    try:
        distance = abs(float(answer) - float(truth))
    except (TypeError, ValueError):
        return []
    return [distance] if math.isfinite(distance) else []
