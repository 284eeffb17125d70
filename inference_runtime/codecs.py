"""Bodies and their media types: from what a client sent to arrays, and from arrays to what it gets.

    Content-Type                          The request                          The answer
    application/json, or none             a document                           a document
    the same with a header length, see    a document, then bytes               a document, then bytes of the
      below                                                                      outputs asked for so
    application/x-npy                     the model's one input                its one output
    application/octet-stream              the bytes of the model's one input   those of its one output
    application/jsonlines                 a document on each line              a document on each line
    text/csv                              an item on each line                 an item on each line

A document followed by bytes says how long the document is, by `Inference-Header-Content-Length`, or by
`Content-Type: application/vnd.sagemaker-triton.binary+json;json-header-size=<bytes>`, or, as SageMaker passes
no other header on, by `json-header-size=<bytes>` in `X-Amzn-SageMaker-Custom-Attributes`. The answer says it
by the first of these, by the second where the client did, and by the bare number in the custom attributes
where the request has any.

`Accept` chooses among the forms that the answer can have. What has no such form comes as a document.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from inference_runtime import compression, plain, tensors
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import Manifest
from inference_runtime.protocol import Documents, InferRequest
from inference_runtime.tensors import Array, Buffer

Arrays = dict[str, Array]

#: The headers that `Codec.read` looks at; a transport need pass no others.
CONTENT_TYPE = "content-type"
CONTENT_ENCODING = "content-encoding"
ACCEPT = "accept"
ACCEPT_ENCODING = "accept-encoding"
HEADER_LENGTH = "inference-header-content-length"
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
HEADERS = frozenset(
    {CONTENT_TYPE, CONTENT_ENCODING, ACCEPT, ACCEPT_ENCODING, HEADER_LENGTH, CUSTOM_ATTRIBUTES}
)

#: Those that change how a document is read or answered.
_MORE = HEADERS - {CONTENT_TYPE, ACCEPT}

#: What the server's metadata say is there beyond the protocol itself.
EXTENSIONS = ("binary_tensor_data",)

_OCTETS = "application/octet-stream"
_TRITON = "application/vnd.sagemaker-triton.binary+json"
_NPY = "application/x-npy"
#: Media types of answers that are no text, which API Gateway carries only to who asks for them.
BINARY_MEDIA_TYPES = (_OCTETS, _NPY, _TRITON)


class Form(Enum):
    """What a body looks like."""

    JSON = "application/json"
    BINARY = _OCTETS
    TRITON = _TRITON
    NPY = _NPY
    RAW = "raw"
    LINES = "application/jsonlines"
    CSV = "text/csv"


_FORMS = {
    "": Form.JSON,
    "application/json": Form.JSON,
    _TRITON: Form.TRITON,
    _OCTETS: Form.RAW,
    _NPY: Form.NPY,
    "application/jsonlines": Form.LINES,
    "application/x-jsonlines": Form.LINES,
    "application/jsonl": Form.LINES,
    "application/x-ndjson": Form.LINES,
    "text/csv": Form.CSV,
}
#: Found faster than the member of the Enum.
_JSON = Form.JSON
_TEXT = (Form.JSON, Form.LINES, Form.CSV)
#: A tensor by itself. As an answer's media type, octets may also be a document followed by bytes.
_TENSOR = (Form.NPY, Form.RAW)
_BINARY = (Form.RAW, Form.TRITON)
_SIZE = "json-header-size"
_LENGTH = re.compile(r"\d{1,10}", re.ASCII)
_ATTRIBUTE = re.compile(r"(?:^|[;, ])json-header-size=([^;, ]*)")


@dataclass(slots=True)
class Call:
    """What a body asks for: one request, or one for each line; and in which form the answer leaves."""

    requests: list[InferRequest]
    form: Form
    encoding: str | None = None
    #: Whether each request is a line of the body, from the first on.
    lines: bool = False
    #: Whether the answer's custom attributes are to say the length of its JSON.
    by_attributes: bool = False

    def located(self, index: int, problem: Problem) -> Problem:
        """A problem with `requests[index]`, as the client is told."""
        return plain.located(index + 1, problem) if self.lines else problem


@dataclass(slots=True)
class Encoded:
    """An answer's body, and the headers that say what it is, by lower-case names."""

    headers: dict[str, str]
    body: bytes
    is_text: bool = True
    #: Of an inference, the seconds that reading, computing and writing took.
    phases: tuple[float, float, float] | None = None


class Codec:
    """Reads the requests and writes the answers of one model. Safe to use from several threads."""

    def __init__(self, manifest: Manifest) -> None:
        self.inputs = {spec.name: spec for spec in manifest.inputs}
        self._documents = Documents(manifest)
        self._readers = list(self._documents.readers.values())
        self._table = plain.Table(self._readers, manifest.outputs)

    def read(self, headers: Mapping[str, str], body: Buffer, limit: int, *, text_only: bool = False) -> Call:
        """Parse and check a body against the model's signature. `body` must not change afterwards.

        Args:
            headers: the request's, of those in `HEADERS`; names in lower case.
            limit: the most bytes that a compressed body may become.
            text_only: whether the answer's way carries text only.

        Raises:
            Problem: any of the 400s, 413 or 415.
        """
        encoding = headers.get(CONTENT_ENCODING)
        if encoding and encoding != "identity":
            body = compression.inflate(encoding, body, limit)
        form, length = _form(headers.get(CONTENT_TYPE, ""))
        if HEADER_LENGTH in headers:
            length = headers[HEADER_LENGTH]
        attributes = headers.get(CUSTOM_ATTRIBUTES)
        if attributes is not None:
            if length is None and (found := _ATTRIBUTE.search(attributes)):
                length = found[1]
            # A value by itself is the id that API Gateway gives to a request.
            if "=" not in attributes and not names_binary(headers.get(ACCEPT)):
                text_only = True
        wanted = _wanted(headers.get(ACCEPT))
        if text_only and wanted not in _TEXT:
            wanted = Form.JSON if form in _TENSOR else None
        call = self._read(form, length, body, wanted)
        if text_only and call.form not in _TEXT:
            call.form = Form.JSON
        if ACCEPT_ENCODING in headers:
            call.encoding = compression.accepted(headers[ACCEPT_ENCODING])
        call.by_attributes = attributes is not None
        return call

    def write(self, call: Call, answers: Sequence[Arrays]) -> Encoded:
        """The answer to `call`: `answers` has the outputs of each of its requests, in their order.

        Raises:
            Problem: unsupported-media-type where the outputs do not fit the form.
        """
        form, request, arrays = call.form, call.requests[0], answers[0]
        if form is _JSON:
            text = Encoded({CONTENT_TYPE: "application/json"}, self._documents.write(request, arrays))
        elif form in (Form.BINARY, Form.TRITON):
            body, length = self._documents.write_binary(request, arrays)
            media_type = f"{_TRITON};{_SIZE}={length}" if form is Form.TRITON else _OCTETS
            headers = {CONTENT_TYPE: media_type, HEADER_LENGTH: str(length)}
            if call.by_attributes:
                headers[CUSTOM_ATTRIBUTES] = headers[HEADER_LENGTH]
            return Encoded(headers, body, False)
        elif form is Form.NPY:
            return Encoded({CONTENT_TYPE: _NPY}, plain.write_npy(arrays[request.outputs[0]]), False)
        elif form is Form.RAW:
            name = request.outputs[0]
            body = tensors.tobytes(arrays[name], self._documents.datatypes[name])
            return Encoded({CONTENT_TYPE: _OCTETS}, body, False)
        elif form is Form.LINES:
            pairs = zip(call.requests, answers, strict=True)
            lines = [self._documents.write(asked, given) + b"\n" for asked, given in pairs]
            text = Encoded({CONTENT_TYPE: Form.LINES.value}, b"".join(lines))
        else:
            body = self._table.write(answers, request.outputs)
            text = Encoded({CONTENT_TYPE: "text/csv; charset=utf-8"}, body)
        return _compressed(text, call.encoding) if call.encoding else text

    def read_document(self, body: bytes) -> InferRequest:
        """As `read`, where the headers are `plainest`."""
        return self._documents.read_again(body)

    def write_document(self, request: InferRequest, arrays: Arrays) -> bytes:
        """The answer to a request from `read_document` that wants no output as bytes."""
        return self._documents.write(request, arrays)

    def rows(self, arrays: Arrays) -> list[bytes] | None:
        """Such answers for a whole batch, where its requests are of one row each; see `Documents.rows`."""
        return self._documents.rows(arrays)

    def _read(self, form: Form, length: str | None, body: Buffer, wanted: Form | None) -> Call:
        if form is _JSON and length is None:
            return self._read_document(body, wanted)
        if form is Form.TRITON or (length is not None and form in (Form.JSON, Form.RAW)):
            return self._read_binary(form, length, body, wanted)
        if length is not None:
            detail = f"{form.value} has no JSON header; leave its length out"
            raise Problem("unsupported-media-type", detail)
        if form in _TENSOR:
            return self._read_tensor(form, body, wanted)
        return self._read_rows(body, wanted) if form is Form.CSV else self._read_lines(body)

    def _read_document(self, body: Buffer, wanted: Form | None) -> Call:
        request = self._documents.read(body, binary=wanted in _BINARY)
        return Call([request], self._answered(request, Form.BINARY, wanted))

    def _read_binary(self, form: Form, length: str | None, body: Buffer, wanted: Form | None) -> Call:
        """A document followed by bytes."""
        if length is None or not _LENGTH.fullmatch(length) or int(length) > len(body):
            raise Problem(
                "invalid-request",
                f"the JSON header's length is {shown(length)}; it must be a number of bytes, "
                f"at most the {len(body)} of the body",
            )
        whole = memoryview(body)
        request = self._documents.read(whole[: int(length)], whole[int(length) :], binary=wanted in _BINARY)
        own = form if form is Form.TRITON else Form.BINARY
        return Call([request], self._answered(request, own, wanted))

    def _answered(self, request: InferRequest, own: Form, wanted: Form | None) -> Form:
        """The form of the answer to a document, where `own` is that of one with bytes."""
        if wanted is None:
            return own if request.binary else _JSON
        if wanted is Form.NPY:
            return self._tensor_form(request, wanted)
        if wanted is Form.TRITON:
            return wanted
        return own if request.binary or wanted is Form.RAW else _JSON

    def _read_tensor(self, form: Form, body: Buffer, wanted: Form | None) -> Call:
        """A tensor by itself."""
        if len(self._readers) != 1:
            raise Problem(
                "unsupported-media-type",
                f"{form.value} is one tensor; the model takes {list(self._documents.readers)}: "
                "use application/json",
            )
        reader = self._readers[0]
        array = plain.read_npy(reader, body) if form is Form.NPY else plain.read_raw(reader, body)
        request = InferRequest({reader.spec.name: array}, self._documents.outputs)
        if wanted is Form.JSON:
            return Call([request], wanted)
        if wanted is Form.TRITON:
            request.binary = frozenset(request.outputs)
            return Call([request], wanted)
        if wanted in _TENSOR:
            return Call([request], self._tensor_form(request, wanted))
        own = self._tensor_form(request, form)
        return Call([request], own if own is form else Form.JSON)

    def _tensor_form(self, request: InferRequest, form: Form) -> Form:
        """`form`, if the answer can be a tensor by itself, or else a document followed by bytes."""
        if len(request.outputs) == 1 and self._documents.datatypes[request.outputs[0]] != "BYTES":
            return form
        request.binary = frozenset(request.outputs)
        return Form.BINARY

    def _read_rows(self, body: Buffer, wanted: Form | None) -> Call:
        requests = [InferRequest(inputs, self._documents.outputs) for inputs in self._table.read(body)]
        if wanted is Form.JSON and self._table.batched:
            return Call(requests, wanted)
        return Call(requests, Form.CSV, lines=not self._table.batched)

    def _read_lines(self, body: Buffer) -> Call:
        lines = bytes(body).split(b"\n")
        if not lines[-1].strip():
            lines.pop()
        requests = []
        for number, line in enumerate(lines, 1):
            try:
                requests.append(self._documents.read(line))
            except Problem as problem:
                raise plain.located(number, problem) from None
        if not requests:
            raise Problem("invalid-json", "The body is empty; send an inference request on each line")
        return Call(requests, Form.LINES, lines=True)


def plainest(headers: Mapping[str, str]) -> bool:
    """Whether these headers say no more than that the body is a document, as most requests' do."""
    if not _MORE.isdisjoint(headers):
        return False
    return _FORMS.get(headers.get(CONTENT_TYPE, "").lower()) is _JSON and _wanted(headers.get(ACCEPT)) is None


def names_binary(accept: str | None) -> bool:
    """Whether the first of the media types in an `Accept` is one that is no text."""
    first = (accept or "").partition(",")[0].partition(";")[0]
    return first.strip().lower() in BINARY_MEDIA_TYPES


@lru_cache(maxsize=256)
def _form(content_type: str) -> tuple[Form, str | None]:
    """What a Content-Type stands for, and the length of the JSON header that it says."""
    media_type, _, parameters = content_type.partition(";")
    form = _FORMS.get(media_type.strip().lower())
    if form is None:
        *most, last = [known for known in _FORMS if known]
        raise Problem(
            "unsupported-media-type",
            f"Content-Type is {shown(media_type)}; use application/json, or another of {[*most[1:], last]}",
        )
    length = None
    if form is Form.TRITON:
        pairs = [parameter.partition("=") for parameter in parameters.split(";")]
        length = next((value.strip() for name, _, value in pairs if name.strip().lower() == _SIZE), None)
    return form, length


@lru_cache(maxsize=256)
def _wanted(accept: str | None) -> Form | None:
    """The first of the forms that an Accept names, if any."""
    for offer in (accept or "").lower().split(","):
        form = _FORMS.get(offer.partition(";")[0].strip() or "*/*")
        if form is not None:
            return form
    return None


def _compressed(encoded: Encoded, encoding: str) -> Encoded:
    body = compression.deflated(encoding, encoded.body)
    if body is None:
        return encoded
    headers = encoded.headers | {CONTENT_ENCODING: encoding, "vary": "accept-encoding"}
    return Encoded(headers, body, False)
