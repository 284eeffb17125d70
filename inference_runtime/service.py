"""One model behind the Open Inference Protocol's routes, whatever carries the requests.

The Lambda and the container differ only in how they read a request and send an `Answer`: routes, statuses,
documents and errors are decided here, once.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from inference_runtime import codecs, errors, protocol
from inference_runtime.codecs import Encoded
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import ArtifactError

if TYPE_CHECKING:
    # ONNX Runtime takes most of a start; the container imports it in the thread that loads the model.
    from inference_runtime.model import Model

logger = logging.getLogger(__name__)

#: The largest body answered inline: base64 takes a third of Lambda's 6 MB.
DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024
#: The largest answer: Lambda carries 6 MB, in which the body is a JSON string with its quotes escaped.
MAX_ANSWER_BYTES = 5 * 1024 * 1024
#: The largest answer that is no text, which Lambda carries as base64.
MAX_BINARY_ANSWER_BYTES = 4 * 1024 * 1024
SERVER = {"name": "inference-platform", "version": "0.1.0", "extensions": list(codecs.EXTENSIONS)}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. Header names are lower-case; `x-request-id` is always among them."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_text: bool = True
    #: As `Encoded` has them.
    phases: tuple[float, float, float] | None = None

    @classmethod
    def of(cls, encoded: Encoded, request_id: str) -> "Answer":
        """A successful answer."""
        headers = {**encoded.headers, "x-request-id": request_id}
        return cls(200, headers, encoded.body, encoded.is_text, encoded.phases)

    @classmethod
    def refusing(cls, problem: Problem, request_id: str) -> "Answer":
        """An RFC 9457 problem."""
        headers = {"content-type": errors.CONTENT_TYPE, "x-request-id": request_id, **problem.headers}
        return cls(problem.status, headers, problem.document(request_id))


class Service:
    """Serves the model `name`. Every failure becomes an `Answer`, and a log record if it is ours."""

    def __init__(
        self, name: str, load: "Callable[[], Model]", max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    ) -> None:
        self.name = name
        self.max_body_bytes = max_body_bytes
        self._load = load
        self._model: Model | None = None
        self._failed = False

    @property
    def ready(self) -> bool:
        """Whether the model is loaded and has answered its warm-up request."""
        return self._model is not None

    @property
    def version(self) -> str | None:
        """The version of the loaded model."""
        return self._model.manifest.version if self._model else None

    def load(self) -> None:
        """Load the model. A failure is logged, and answered as 503 until a later call succeeds."""
        try:
            model = self._load()
            if model.manifest.name != self.name:
                raise ArtifactError(f"the artifact is {model.manifest.name!r}, expected {self.name!r}")
            self._model = model
        except Exception as error:
            self._failed = True
            logger.exception("model not loaded", extra={"model": self.name, "reason": str(error)})

    def handle(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        request_id: str,
        *,
        text_only: bool = False,
    ) -> Answer:
        """Answer a request.

        Args:
            path: the protocol's own, from `/v2` on.
            headers: by lower-case name; those in `codecs.HEADERS` are looked at.
            text_only: whether the answer's way carries text only.
        """
        try:
            self.check_size(len(body))
            return Answer.of(self._perform(method, path, headers, body, text_only), request_id)
        except Problem as problem:
            return Answer.refusing(problem, request_id)
        except Exception:
            logger.exception("request failed", extra={"model": self.name, "request_id": request_id})
            return Answer.refusing(
                Problem("internal", "The server could not answer this request"), request_id
            )

    def check_size(self, size: int) -> None:
        """Raise payload-too-large when a body of `size` bytes is over the limit."""
        if size > self.max_body_bytes:
            raise Problem("payload-too-large", f"The body is over the limit of {self.max_body_bytes} bytes")

    def _perform(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, text_only: bool
    ) -> Encoded:
        for pattern, allowed, operation in _ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if match.groupdict().get("model", self.name) != self.name:
                raise Problem("not-found", f"There is no model {shown(match['model'])} here")
            if method != allowed:
                raise Problem("method-not-allowed", f"Use {allowed}", {"allow": allowed})
            if operation is None:
                return self._infer(headers, body, text_only)
            return Encoded({"content-type": "application/json"}, operation(self))
        raise Problem("not-found", f"There is no {shown(path)} here")

    def loaded(self) -> "Model":
        """The model. Raises model-unavailable, with the reason, if it is not loaded."""
        if self._model is None:
            reason = "could not be loaded" if self._failed else "is still loading; try again soon"
            raise Problem("model-unavailable", f"The model {self.name!r} {reason}")
        return self._model

    def _server_metadata(self) -> bytes:
        return orjson.dumps(SERVER)

    def _server_live(self) -> bytes:
        return orjson.dumps({"live": True})

    def _server_ready(self) -> bytes:
        self.loaded()
        return orjson.dumps({"ready": True})

    def _model_metadata(self) -> bytes:
        return protocol.model_metadata(self.loaded().manifest)

    def _model_ready(self) -> bytes:
        self.loaded()
        return orjson.dumps({"name": self.name, "ready": True})

    def _infer(self, headers: Mapping[str, str], body: bytes, text_only: bool) -> Encoded:
        answer = self.loaded().answer(body, headers, limit=self.max_body_bytes, text_only=text_only)
        check_answer(len(answer.body), answer.is_text)
        return answer


def check_answer(size: int, is_text: bool) -> None:
    """Raise payload-too-large for an answer of `size` bytes that not every target could carry."""
    limit = MAX_ANSWER_BYTES if is_text else MAX_BINARY_ANSWER_BYTES
    if size > limit:
        raise Problem("payload-too-large", f"The answer would be over {limit} bytes; send fewer rows at once")


#: An operation of None is inference, the only one that reads the request.
_ROUTES: tuple[tuple[re.Pattern[str], str, Callable[[Service], bytes] | None], ...] = (
    (re.compile(r"/v2"), "GET", Service._server_metadata),
    (re.compile(r"/v2/health/live"), "GET", Service._server_live),
    (re.compile(r"/v2/health/ready"), "GET", Service._server_ready),
    (re.compile(r"/v2/models/(?P<model>[^/]+)"), "GET", Service._model_metadata),
    (re.compile(r"/v2/models/(?P<model>[^/]+)/ready"), "GET", Service._model_ready),
    (re.compile(r"/v2/models/(?P<model>[^/]+)/infer"), "POST", None),
)
