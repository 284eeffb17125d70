"""Running other programs so that none outlives us, with everything they say kept in one log file."""

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Self

from inferctl.errors import InferctlError

GRACE = 5.0  # seconds that a program has to end by itself
TAIL = 25  # lines of its output that a failure shows


class CommandError(InferctlError):
    """A program failed; the message has the end of its output and the log's path."""


class Commands(AbstractContextManager["Commands"]):
    """Programs started from several threads; leaving the block ends those that still run."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text("")
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            _signal_group(process, signal.SIGTERM)
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)

    def run(
        self,
        arguments: Sequence[str],
        *,
        what: str,
        folder: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None] = lambda line: None,
        is_noise: Callable[[str], bool] = lambda line: False,
    ) -> None:
        """Run a program to its end; each line of its output goes to the log and to `on_line`.

        A failure shows the last lines that are not noise. Raises CommandError when it fails, or when the
        block was left meanwhile.
        """
        tail: deque[str] = deque(maxlen=TAIL)
        process = self._start(arguments, folder, environment)
        assert process.stdout is not None
        with process.stdout, self._log.open("a", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                text = line.rstrip()
                on_line(text)
                if text and not is_noise(text):
                    tail.append(text)
        status = process.wait()
        with self._lock:
            self._running.discard(process)
        if status != 0:
            shown = "\n".join(f"  {line}" for line in tail)
            raise CommandError(f"{what} failed (exit status {status}); the whole log is {self._log}\n{shown}")

    def _start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        with self._lock:
            if self._closed:
                raise CommandError("Stopped.")
            process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A session of its own: Ctrl-C reaches us alone, and we end the program with all its children.
                start_new_session=True,
            )
            self._running.add(process)
            return process


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
