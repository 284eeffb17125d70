"""What may be set about a server, and the environment variables that set it (docs/architecture.md)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference_runtime.batching import Limits
from inference_runtime.service import DEFAULT_MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's settings. Sizes are in bytes, times in seconds; the defaults suit most models."""

    #: The largest request body, also when it is inflated.
    body_bytes: int = DEFAULT_MAX_BODY_BYTES
    #: Of all requests that are received and not answered.
    pending_bytes: int = 256 * 1024 * 1024
    #: Rows that are run at once, at most; 1 joins nothing. The warm-up may choose less.
    max_batch: int = 64
    #: One model's queue.
    limits: Limits = field(default_factory=Limits)
    #: For which a client waits. It may ask for less, never for more.
    deadline_seconds: float = 60.0
    #: `auto`, `cpu`, `cuda` or `tensorrt`.
    device: str = "auto"
    #: Of one model's engine; 0 lets the warm-up choose.
    threads: int = 0
    #: Where TensorRT keeps what it has built.
    engine_cache: Path | None = None
    #: Of the files of all loaded models; 0 is no limit.
    memory_bytes: int = 0
    #: Of the access log, a second; as many again for errors.
    log_lines: int = 100
    #: Of the server, at most, where the warm-up says that several pay; 0 is one for each core, up to 8.
    processes: int = 0

    def shared(self, processes: int) -> "Settings":
        """One process's part, so that all together keep what is set for the whole."""
        return replace(
            self,
            pending_bytes=self.pending_bytes // processes,
            limits=replace(self.limits, queue=max(1, self.limits.queue // processes)),
            log_lines=self.log_lines and max(1, self.log_lines // processes),
        )

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """As the environment says.

        Raises:
            ValueError: a variable has no such value; it is named.
        """
        default = cls()
        return cls(
            body_bytes=_number(environment, "MAX_BODY_BYTES", default.body_bytes),
            pending_bytes=_number(environment, "MAX_PENDING_BYTES", default.pending_bytes),
            max_batch=_number(environment, "MAX_BATCH_SIZE", default.max_batch),
            limits=Limits(
                queue=_number(environment, "MAX_QUEUE_SIZE", default.limits.queue),
                delay_seconds=_seconds(environment, "MAX_DELAY_MS", default.limits.delay_seconds),
                wedged_seconds=_seconds(environment, "WEDGED_MS", default.limits.wedged_seconds),
            ),
            deadline_seconds=_seconds(environment, "REQUEST_TIMEOUT_MS", default.deadline_seconds),
            device=_one_of(environment, "DEVICE", ("auto", "cpu", "cuda", "tensorrt")),
            threads=_number(environment, "ENGINE_THREADS", default.threads, least=0),
            engine_cache=Path(environment["ENGINE_CACHE"]) if environment.get("ENGINE_CACHE") else None,
            memory_bytes=_number(environment, "MODEL_MEMORY_BYTES", default.memory_bytes, least=0),
            log_lines=_number(environment, "LOG_LINES_PER_SECOND", default.log_lines, least=0),
            processes=_number(environment, "PROCESSES", default.processes, least=0),
        )


def _number(environment: Mapping[str, str], name: str, default: int, least: int = 1) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ValueError(f"{name} is {text!r}; it must be a whole number, at least {least}")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    return _number(environment, name, round(default * 1000), least=0) / 1000


def _one_of(environment: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = environment.get(name) or allowed[0]
    if text not in allowed:
        raise ValueError(f"{name} is {text!r}; it must be one of {', '.join(allowed)}")
    return text
