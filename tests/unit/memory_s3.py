"""As much of S3's client as functions ask that read many small objects: buckets in memory, listed in order.

For tests in which moto would take most of the time.
"""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

PAGE = 1000


class MemoryS3:
    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], tuple[bytes, datetime]] = {}

    def client(self, service: str) -> "MemoryS3":
        """In place of `boto3`."""
        assert service == "s3"
        return self

    def take(self, other: "MemoryS3") -> None:
        """Have all that another has."""
        self._objects |= other._objects

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str = "") -> None:
        self._objects[Bucket, Key] = Body, datetime.now(UTC)

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self._objects[Bucket, Key][0])}

    def list_objects_v2(
        self, *, Bucket: str, Prefix: str, StartAfter: str = "", MaxKeys: int = PAGE
    ) -> dict[str, Any]:
        found = sorted(
            (key, changed)
            for (bucket, key), (_, changed) in self._objects.items()
            if bucket == Bucket and key.startswith(Prefix) and key > StartAfter
        )
        listed = [{"Key": key, "LastModified": changed} for key, changed in found[:MaxKeys]]
        # S3 leaves the member out where there is nothing.
        return {"Contents": listed} if listed else {}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_objects_v2"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, *, StartAfter: str = "", **listed: str) -> Iterator[dict[str, Any]]:
        while True:
            page = self.list_objects_v2(StartAfter=StartAfter, **listed)
            yield page
            if len(page.get("Contents", ())) < PAGE:
                return
            StartAfter = page["Contents"][-1]["Key"]
