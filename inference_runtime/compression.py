"""Compressed bodies (`Content-Encoding`), whose size when inflated is bounded before it is known."""

import re
import zlib

from inference_runtime.errors import Problem, shown
from inference_runtime.tensors import Buffer

#: Encoding -> zlib's `wbits` for its container format (RFC 1952, RFC 1950).
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_NEVER = re.compile(r"q\s*=\s*0(\.0*)?")
#: Smaller answers gain nothing; bytes.
_WORTH = 2048


def inflate(encoding: str, body: Buffer, limit: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        Problem: unsupported-media-type for an encoding that is not known, invalid-request for a damaged body,
        payload-too-large as soon as more than `limit` bytes come out.
    """
    wbits = _WBITS.get(encoding.strip().lower())
    if wbits is None:
        raise Problem(
            "unsupported-media-type",
            f"Content-Encoding is {shown(encoding)}; use gzip, deflate or none",
            {"accept-encoding": "gzip, deflate"},
        )
    inflater = zlib.decompressobj(wbits)
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Problem("invalid-request", f"The body is not valid {encoding}: {error}") from None
    if len(content) > limit:
        raise Problem("payload-too-large", f"The body, inflated, is over the limit of {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Problem("invalid-request", f"The body is not one whole {encoding} stream")
    return content


def accepted(accept_encoding: str) -> str | None:
    """The encoding to answer in, by the client's `Accept-Encoding`."""
    for offer in accept_encoding.lower().split(","):
        name, _, weight = offer.partition(";")
        if name.strip() in ("gzip", "deflate") and not _NEVER.fullmatch(weight.strip()):
            return name.strip()
    return None


def deflated(encoding: str, body: bytes) -> bytes | None:
    """The body compressed, or None where that is not worth the time."""
    if len(body) < _WORTH:
        return None
    deflater = zlib.compressobj(1, zlib.DEFLATED, _WBITS[encoding])
    return deflater.compress(body) + deflater.flush()
