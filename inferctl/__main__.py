"""The program `inferctl`, also `python -m inferctl`."""

import signal
from types import FrameType

from inferctl.cli import cli


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line; a request to terminate cleans up like Ctrl-C does."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, _terminated)
    cli(prog_name="inferctl")


if __name__ == "__main__":
    main()
