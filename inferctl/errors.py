"""Everything that inferctl reports instead of a traceback, each with the exit status it leads to."""

from dataclasses import dataclass
from typing import Any

FAILED = 1
USAGE = 2
UNREACHABLE = 3
UNAUTHORIZED = 4
INTERRUPTED = 130


class InferctlError(Exception):
    """Something failed; the message says what, and what to do."""

    exit_status = FAILED


class UnreachableError(InferctlError):
    """The environment is not up, not deployed, or does not answer."""

    exit_status = UNREACHABLE


class InputError(InferctlError):
    """What the user gave does not fit."""

    exit_status = USAGE


class CredentialsError(InferctlError):
    """No credentials, or credentials that are refused."""

    exit_status = UNAUTHORIZED


@dataclass(eq=False)
class ProblemError(InferctlError):
    """The API answered an error: its RFC 9457 problem document.

    `type` is `urn:inference-platform:problem:<slug>`, or `about:blank` for an answer that was no such
    document. `retry_after` is the pause, in seconds, that the answer asks for.
    """

    status: int
    title: str
    detail: str
    type: str
    request_id: str | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        super().__init__(str(self))

    @property
    def slug(self) -> str:
        """The last part of the type: `invalid-shape`."""
        return self.type.rsplit(":", 1)[-1]

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        return UNAUTHORIZED if self.status in (401, 403) else FAILED

    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": self.request_id,
        }

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.title}: {self.detail}{request}"
