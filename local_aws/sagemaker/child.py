"""Runs a command that dies with the process that started it: `python child.py PARENT_ID COMMAND...`.

On Linux the kernel is asked to kill this process when its parent ends, and the command takes its place, so
that no process stands between the server and its container. Elsewhere this process stays, watches for its
parent and ends the command. It imports nothing of ours: it runs before a container's environment is set up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended before the kernel was asked.
        if os.getppid() != parent:
            return 1
        os.execv(command[0], command)  # noqa: S606 - the point of this file
    process = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while process.poll() is None:
        if os.getppid() != parent:
            process.kill()
        with contextlib.suppress(InterruptedError):
            time.sleep(0.5)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
