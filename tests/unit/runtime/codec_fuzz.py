"""Damages valid requests of every form, and sees them read as the signature says, or refused.

Each case has a number, from which all of it follows. `make fuzz` tries new ones for a minute; what fails is
printed with its number, and tried again by

    python -m tests.unit.runtime.codec_fuzz --from <case> --cases 1
"""

import argparse
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable
from itertools import count, islice
from random import Random, SystemRandom
from time import monotonic
from typing import Any

import numpy as np

from inference_runtime.codecs import Codec
from inference_runtime.errors import Problem
from inference_runtime.manifest import DATATYPES, Manifest, TensorSpec
from inference_runtime.tensors import DTYPES, fits

LIMIT = 1 << 16
TRITON = "application/vnd.sagemaker-triton.binary+json"
#: Put into a body where something was: what parsers trip over.
TOKENS = [
    b"-1", b"0", b"1e999", b"18446744073709551616", b"null", b"true", b"{}", b"[]", b'"x"', b"[[", b"\xff",
    b"\0" * 4, b"\xff" * 4, b"NaN", b",", b"\n", b'"', b'"data":', b'"binary_data_size":', b'"shape":',
]  # fmt: skip
_DIGIT = re.compile(rb"[0-9]")
#: Values in place of a number.
VALUES: list[Any] = [0, 1, True, False, None, -1, 1.5, 1e300, 1 << 64, "1", [1], [1, 0], [[1, 0]]]
MANY = [TensorSpec(datatype.lower(), datatype, (-1, 2)) for datatype in DATATYPES]
ANSWER = {"y": np.ones(1, np.float32), "z": np.array([b"\xff"], np.object_)}

#: A valid request: the codec's name, headers and body.
Seed = tuple[str, dict[str, str], bytes]


class Failure(AssertionError):
    """A request that the codec neither read rightly nor refused; the message says which case it is."""


class Fuzzer:
    """The codecs of one model for each datatype, and of one that takes all of them."""

    def __init__(self) -> None:
        self.codecs = {name: _codec(TensorSpec("x", name, (-1, 2))) for name in DATATYPES}
        self.codecs["all"] = _codec(*MANY)
        self.seeds = _seeds()

    def run(self, first: int, seconds: float, most: int | None = None) -> int:
        """Try cases from `first` on until so many seconds are over, or so many were tried. Returns how many.

        Raises:
            Failure: by the first case that fails.
        """
        end = monotonic() + seconds
        for case in islice(count(first), most):
            random = Random(case)  # noqa: S311 (chance that can be repeated)
            kind: Callable[[Random], None] = self._alike if random.random() < 0.3 else self._damaged
            try:
                kind(random)
            except Exception as error:
                raise Failure(f"case {case}: {type(error).__name__}: {error}") from error
            if case % 64 == 0 and monotonic() > end:
                break
        return case - first + 1

    def _damaged(self, random: Random) -> None:
        """A request with a few bytes changed is read as the signature says, or refused."""
        name, headers, body = random.choice(self.seeds)
        if headers and random.random() < 0.3:
            changed = random.choice(sorted(headers))
            value = _damage(random, headers[changed].encode()).decode("latin-1")
            headers = headers | {changed: value}
        body = _damage(random, body)
        codec = self.codecs[name]
        problem: Problem | None = None
        try:
            call = codec.read(headers, body, LIMIT)
            encoded = codec.write(call, [ANSWER for _ in call.requests])
        except Problem as caught:
            problem = caught
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} by {headers} {body!r}") from error
        if problem:
            assert problem.status in (400, 413, 415), (problem.status, headers, body)
            assert len(problem.detail) < 600, (problem.detail, headers, body)
            return
        sent = len(body) if "content-encoding" not in headers else LIMIT
        for request in call.requests:
            assert request.inputs.keys() == codec.inputs.keys(), (headers, body)
            for input_, array in request.inputs.items():
                spec = codec.inputs[input_]
                assert array.dtype == DTYPES[spec.datatype], (array.dtype, headers, body)
                assert fits(array.shape, spec), (array.shape, headers, body)
                assert array.nbytes <= 8 * sent, (array.nbytes, headers, body)
        assert encoded.body, (headers, body)

    def _alike(self, random: Random) -> None:
        """A document like the one before is read as if there had been none before it."""
        datatype = random.choice([name for name in DATATYPES if name != "BYTES"])
        first, second = _alike(random, datatype)
        codec = _codec(TensorSpec("x", datatype, (-1, 2)))
        for body in (first, second, first):
            expected, found = (_outcome(read, body) for read in (_reader(codec), codec.read_document))
            assert found == expected, f"{found}, not {expected}, of {body!r} after {first!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Damages requests, and sees them read or refused.")
    parser.add_argument("--seconds", type=float, default=60, help="for which to try new cases (default: 60)")
    parser.add_argument("--from", type=int, dest="first", help="the first case's number (default: by chance)")
    parser.add_argument("--cases", type=int, help="how many to try, at most")
    options = parser.parse_args()
    first = SystemRandom().randrange(1 << 40) if options.first is None else options.first
    started = monotonic()
    try:
        tried = Fuzzer().run(first, options.seconds, options.cases)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"{tried:,} cases from {first} on in {monotonic() - started:.0f} s: each read or refused")
    return 0


def _codec(*specs: TensorSpec) -> Codec:
    outputs = (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "BYTES", (-1,)))
    return Codec(Manifest("0" * 64, "m", "1", "onnxruntime_onnx", "model.onnx", None, {}, specs, outputs))


def _seeds() -> list[Seed]:
    tensors: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    tail = b""
    found: list[Seed] = []
    for spec in MANY:
        dtype = DTYPES[spec.datatype]
        array = np.array([[1, 0], [1, 1]]).astype(dtype)
        member = {"name": spec.name, "datatype": spec.datatype, "shape": [2, 2]}
        data = array.tobytes()
        values: Any = array.tolist()
        if spec.datatype == "BYTES":
            values, data = [["a", ""], ["é", "bc"]], b"\1\0\0\0a\0\0\0\0\2\0\0\0\xc3\xa9\2\0\0\0bc"
        elif spec.datatype == "BF16":
            data = b"\x80\x3f\0\0\x80\x3f\x80\x3f"
        tensors.append(member | {"data": values})
        described.append(member | {"parameters": {"binary_data_size": len(data)}})
        tail += data
        alone = json.dumps({"inputs": [tensors[-1] | {"name": "x"}]}).encode()
        with_bytes = json.dumps({"inputs": [described[-1] | {"name": "x"}]}).encode()
        rows = "\n".join(",".join(str(value).lower() for value in row) for row in values).encode()
        found += [
            (spec.datatype, {"content-type": "application/jsonlines"}, alone + b"\n" + alone),
            (spec.datatype, {"content-type": "text/csv"}, rows),
            (spec.datatype, {"inference-header-content-length": str(len(with_bytes))}, with_bytes + data),
            (spec.datatype, {"accept-encoding": "gzip", "content-encoding": "deflate"}, zlib.compress(alone)),
        ]
        if dtype.kind != "O":
            found.append((spec.datatype, {"content-type": "application/octet-stream"}, data))
            file = io.BytesIO()
            np.save(file, array)
            found.append((spec.datatype, {"content-type": "application/x-npy"}, file.getvalue()))
    outputs = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
    whole = json.dumps({"id": "7", "inputs": tensors, "outputs": outputs, "parameters": {"k": 1}}).encode()
    header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    length = str(len(header))
    attributes = {
        "content-type": "application/octet-stream",
        "x-amzn-sagemaker-custom-attributes": f"json-header-size={length}",
    }
    return [
        *found,
        ("all", {}, whole),
        ("all", {"content-encoding": "gzip"}, gzip.compress(whole)),
        ("all", {"inference-header-content-length": length}, header + tail),
        ("all", {"content-type": f"{TRITON};json-header-size={length}", "accept": "*/*"}, header + tail),
        ("all", attributes, header + tail),
    ]


def _damage(random: Random, content: bytes) -> bytes:
    """`content` with up to three pieces cut, copied, changed or put in."""
    for _ in range(random.randrange(4)):
        at = random.randint(0, len(content))
        if random.random() < 0.3 and (digit := _DIGIT.search(content, at)):
            # A length that lies, in a body that is as long as before.
            at, end, put = digit.start(), digit.end(), str(random.randrange(10)).encode()
        else:
            end = min(len(content), at + random.randint(0, 6))
            some = random.randbytes(random.randint(1, 4))
            put = random.choice([b"", random.choice(TOKENS), some, content[at:end] * 2])
        content = content[:at] + put + content[end:]
    return content


def _alike(random: Random, datatype: str) -> tuple[bytes, bytes]:
    """A document of one tensor, and one that is like it in most of its bytes."""
    valid = [True, False] if datatype == "BOOL" else [1, 0]
    # Long lists are read otherwise than short ones.
    before = random.choices(valid, k=2 * random.choice([0, 0, 1, 127, 128, 150]))
    if datatype.startswith("FP"):
        before = [value * random.gauss() for value in before]
    member = {"name": "x", "datatype": datatype, "shape": [len(before) // 2 + 1, 2]}
    order = [*member, "data"]
    random.shuffle(order)
    separators = random.choice([(",", ":"), None])
    documents = []
    for data in (valid, random.choices([*valid, *VALUES], k=random.randint(1, 3))):
        tensor = {name: (member | {"data": [*before, *data]})[name] for name in order}
        documents.append(json.dumps({"inputs": [tensor]}, separators=separators).encode())
    first, second = documents
    return first, _damage(random, random.choice(documents)) if random.random() < 0.5 else second


def _reader(codec: Codec) -> Callable[[bytes], Any]:
    return lambda body: codec.read({}, body, LIMIT).requests[0]


def _outcome(read: Callable[[bytes], Any], body: bytes) -> tuple[str, Any]:
    """What reading a document gives: its problem, or the request's parts."""
    try:
        request = read(body)
    except Problem as problem:
        return problem.slug, problem.detail
    arrays = {name: (array.shape, array.tobytes()) for name, array in request.inputs.items()}
    return "", (request.id, request.outputs, request.binary, arrays)


if __name__ == "__main__":
    sys.exit(main())
