"""Finding and ending the processes of one embedded AWS, whatever became of the process that started them.

Process ids are reused, so no recorded id is ever signalled on its own. A process belongs to a server when its
environment carries that server's mark, which only the launcher sets and every descendant inherits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK_VARIABLE = "LOCAL_AWS_SERVER"


def marked(home: Path) -> list[int]:
    """Ids of the live processes that carry the mark of the server in `home`, this process excepted."""
    mark = f"{MARK_VARIABLE}={home}"
    return [pid for pid, environment in _environments() if mark in environment and pid != os.getpid()]


def is_marked(pid: int, home: Path) -> bool:
    """Whether `pid` is alive and belongs to the server in `home`."""
    return pid in marked(home)


def end(pids: list[int], home: Path, grace: float) -> None:
    """Ask `pids` to exit, then kill every marked process that is left after `grace` seconds."""
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while marked(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    # A process may fork between being listed and being killed: repeat until the list is empty.
    for _ in range(100):
        remaining = marked(home)
        if not remaining:
            return
        for pid in remaining:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _environments() -> Iterator[tuple[int, list[str]]]:
    """(process id, environment as NAME=value strings) of every live process that this user may inspect."""
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                # A zombie's environment reads as empty: it is already dead.
                yield int(entry.name), (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        return
    listing = subprocess.run(
        ["/bin/ps", "-A", "-E", "-ww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), command.split(" ")
