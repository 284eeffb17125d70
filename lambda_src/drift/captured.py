"""Captures read back: which files of a time there are, and the tensors that they hold.

    s3://<bucket>/captures/<endpoint>/<variant>/yyyy/mm/dd/hh/<file>.jsonl

Bodies are a stranger's: what is not as the model's signature says is a misfit, and is counted.
"""

import base64
import binascii
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_runtime.codecs import BINARY_MEDIA_TYPES, Codec, Form
from inference_runtime.errors import Problem
from inference_runtime.manifest import Manifest, TensorSpec
from inference_runtime.tensors import BASE64, fits

logger = logging.getLogger()

PAGES_PER_RUN = 400
"""List requests for one window, each for a thousand files. Where there are more files, each hour gets as many
requests as the others, and its later files are not drawn.
"""

MEDIA_TYPES = {*BINARY_MEDIA_TYPES, *(form.value for form in Form)}
LONGEST_BODY = 8 * 1024 * 1024
READERS = 16

Array = NDArray[Any]


class Misfit(Exception):
    """A body is not as the signature says; the message holds nothing of it."""


class Unread(Exception):
    """A body is in a form whose tensors cannot be told from a capture alone."""


@dataclass(frozen=True, slots=True)
class Window:
    """From a moment on, and before another."""

    since: datetime
    until: datetime

    def hours(self) -> list[datetime]:
        hour = self.since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        count = max(0, -((hour - self.until) // timedelta(hours=1)))
        return [hour + timedelta(hours=i) for i in range(count)]

    def __contains__(self, moment: datetime) -> bool:
        return self.since <= moment < self.until


@dataclass(frozen=True, slots=True)
class Exchange:
    """One captured request and its answer: arrays by tensor; BYTES are objects, None where nothing was
    given, and NaN likewise. Tensors that are redacted, or of a side that is not kept, are not there.
    """

    request_id: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]


class Captures:
    """The captures of one endpoint in S3."""

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        """
        Args:
            prefix: `captures/<endpoint>/<variant>/`.
        """
        self._s3, self._bucket, self._prefix = s3, bucket, prefix

    def sample(self, window: Window, most: int, random: Random) -> list[dict[str, Any]]:
        """The records of up to `most` files of the window, drawn at random."""
        keys: list[str] = []
        for number, page in enumerate(self._pages(window)):
            if number == PAGES_PER_RUN:
                keys = self._of_each_hour(window)
                break
            keys += page
        chosen = random.sample(keys, most) if len(keys) > most else keys
        return list(self._records(chosen, window))

    def in_order(self, window: Window) -> Iterator[dict[str, Any]]:
        """The records of the window, the oldest first."""
        for page in self._pages(window):
            yield from self._records(page, window)

    def _pages(self, window: Window) -> Iterator[list[str]]:
        """The keys of the window, as they are listed: names begin with the time."""
        since, until = (f"{self._prefix}{moment.astimezone(UTC):%Y/%m/%d/%H}" for moment in
                        (window.since, window.until))  # fmt: skip
        listed = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, StartAfter=since
        )
        for page in listed:
            keys = [item["Key"] for item in page.get("Contents", ())]
            # What lies in the window's last hour has that hour's name before it.
            yield [key for key in keys if key[: len(until)] <= until]
            if keys and keys[-1][: len(until)] > until:
                return

    def _of_each_hour(self, window: Window) -> list[str]:
        """As many keys of each hour as can be listed, from its beginning."""
        hours = window.hours()
        pages = max(1, PAGES_PER_RUN // len(hours))
        listing = self._s3.get_paginator("list_objects_v2")
        return [
            item["Key"]
            for hour in hours
            for page in islice(
                listing.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{hour:%Y/%m/%d/%H}/"), pages
            )
            for item in page.get("Contents", ())
        ]

    def _records(self, keys: Sequence[str], window: Window) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(keys), 10 * READERS):
                for body in pool.map(self._read, keys[start : start + 10 * READERS]):
                    for line in body.splitlines():
                        record = json.loads(line)
                        if _time(record) in window:
                            yield record

    def _read(self, key: str) -> bytes:
        body: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


def _time(record: dict[str, Any]) -> datetime:
    return datetime.strptime(record["eventMetadata"]["inferenceTime"], "%Y-%m-%dT%H:%M:%SZ").replace(
        tzinfo=UTC
    )


class Reader:
    """Reads the records of one version of a model."""

    def __init__(self, manifest: Manifest) -> None:
        self._version = manifest.version
        self._inputs = {spec.name: spec for spec in manifest.inputs}
        self._outputs = {spec.name: spec for spec in manifest.outputs}
        self._codec = Codec(manifest)

    def read(self, record: dict[str, Any]) -> list[Exchange] | None:
        """The record's exchange, or those of its lines; None if another version answered it.

        Raises:
            Misfit, Unread
        """
        data = record["captureData"]
        asked, answered = data.get("endpointInput"), data.get("endpointOutput")
        request_id = record["eventMetadata"].get("inferenceId", "")
        outputs: dict[str, Array] = {}
        if answered:
            if answered["encoding"] != "JSON":
                raise Unread(_kind(answered))
            document = _document(answered["data"])
            if document.get("model_version") != self._version:
                return None
            outputs = _tensors(document.get("outputs"), self._outputs)
        if not asked:
            return [Exchange(request_id, {}, outputs)]
        if asked["encoding"] == "JSON":
            inputs = _tensors(_document(asked["data"]).get("inputs"), self._inputs)
            return [Exchange(request_id, inputs, outputs)]
        return self._decoded(asked, request_id, outputs)

    def _decoded(self, asked: dict[str, Any], request_id: str, outputs: dict[str, Array]) -> list[Exchange]:
        """A request that is no JSON document: bytes, or rows, by its media type."""
        if not asked["data"]:
            return [Exchange(request_id, {}, outputs)]  # redacted
        try:
            body = (
                base64.b64decode(asked["data"]) if asked["encoding"] == "BASE64" else asked["data"].encode()
            )
            call = self._codec.read({"content-type": asked["observedContentType"]}, body, LONGEST_BODY)
        except (Problem, binascii.Error):
            # A document followed by bytes has its length in a header, which captures do not keep.
            raise Unread(_kind(asked)) from None
        first, *others = call.requests
        return [
            Exchange(request_id, dict(first.inputs), outputs),
            *(Exchange(request_id, dict(each.inputs), {}) for each in others),
        ]


def _kind(side: dict[str, Any]) -> str:
    """The media type of a body, if it is one that the models take: clients write it."""
    name = str(side.get("observedContentType")).partition(";")[0].strip().lower()
    return name if name in MEDIA_TYPES else "another media type"


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Misfit("a body is no JSON") from None
    if not isinstance(document, dict):
        raise Misfit("a body is no object")
    return document


def _tensors(documents: object, specs: dict[str, TensorSpec]) -> dict[str, Array]:
    if not isinstance(documents, list) or not all(isinstance(each, dict) for each in documents):
        raise Misfit("a document has no list of tensors")
    arrays = {}
    for document in documents:
        spec = specs.get(str(document.get("name")))
        if spec is None:
            raise Misfit("a tensor that the signature does not have")
        if not (document.get("parameters") or {}).get("redacted"):
            arrays[spec.name] = _array(document, spec)
    return arrays


def _array(document: dict[str, Any], spec: TensorSpec) -> Array:
    """A tensor of a document. Unlike the codecs it takes `null`, which answers have in place of NaN."""
    shape, values = document.get("shape"), document.get("data")
    if document.get("datatype") != spec.datatype:
        raise Misfit(f"{spec.name}: another datatype")
    if not isinstance(shape, list) or not all(type(n) is int for n in shape) or not fits(shape, spec):
        raise Misfit(f"{spec.name}: another shape")
    try:
        flat = np.array(_flat(values), object if spec.datatype == "BYTES" else np.float64)
        if (document.get("parameters") or {}).get("content_type") == BASE64["content_type"]:
            flat = np.array([base64.b64decode(each) for each in flat], object)
        return flat.reshape(shape)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise Misfit(f"{spec.name}: values that do not fit datatype and shape") from None


def _flat(values: Any) -> list[Any]:
    """Nested lists as one. Rows are most often lists of numbers, which are joined as a whole."""
    while values and isinstance(values[0], list):
        values = [each for inner in values for each in inner]
    return list(values)
