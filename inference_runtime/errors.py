"""The errors a client may see, as RFC 9457 problem details. One table, the same on every target."""

import json
import reprlib

#: slug -> (HTTP status, title). Part of the public API: clients switch on `type`, which ends in the slug.
PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed-request": (400, "The request is not HTTP/1.1"),
    "invalid-json": (400, "The body is not valid JSON"),
    "invalid-request": (400, "The body is not an inference request"),
    "unknown-input": (400, "The model has no such input"),
    "missing-input": (400, "A required input is missing"),
    "invalid-datatype": (400, "The tensor has the wrong datatype"),
    "invalid-shape": (400, "The tensor has the wrong shape"),
    "invalid-data": (400, "The tensor's data are not valid"),
    "unknown-output": (400, "The model has no such output"),
    "unauthorized": (401, "A valid access token is needed"),
    "forbidden": (403, "The platform refuses this caller"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "This address does not support the method"),
    "request-timeout": (408, "The request did not arrive in time"),
    "payload-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body's media type is not supported"),
    "throttled": (429, "Too many requests"),
    "headers-too-large": (431, "The headers are too large"),
    "model-error": (500, "The model failed"),
    "internal": (500, "The server failed"),
    "model-unavailable": (503, "The model is not ready"),
    "overloaded": (503, "The server has too much to do"),
    "timeout": (504, "The model did not answer in time"),
    "insufficient-memory": (507, "The models take too much memory"),
}

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 60, 8, 2, 2

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An error meant for the client. `detail` names the field and the remedy, and nothing internal."""

    def __init__(self, slug: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.headers = headers or {}
        self.status, self.title = PROBLEMS[slug]

    def document(self, request_id: str) -> bytes:
        """The `application/problem+json` body: five members, and `retry_after` where there is that header,
        which does not come through SageMaker.
        """
        document = {
            "type": f"urn:inference-platform:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if "retry-after" in self.headers:
            document["retry_after"] = int(self.headers["retry-after"])
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def shown(value: object) -> str:
    """A client's own value quoted for a `detail`, short whatever its size or depth."""
    return _SHORT.repr(value)
