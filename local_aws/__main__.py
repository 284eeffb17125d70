"""`python -m local_aws start|stop|status`: the embedded AWS from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from local_aws import LocalAwsError, State, launcher


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 for success, 1 for a failure, 3 for `status` when nothing runs."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "start" and options.foreground:
            return launcher.run(options.port, home=options.home)
        if options.command == "start":
            _print(launcher.start(options.port, home=options.home), options.json)
        elif options.command == "stop":
            stopped = launcher.stop(home=options.home)
            print("The embedded AWS is stopped." if stopped else "The embedded AWS was not running.")
        else:
            state = launcher.status(home=options.home)
            _print(state, options.json)
            return 0 if state else 3
    except LocalAwsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local_aws", description="The embedded AWS, on loopback only."
    )
    parser.add_argument("--home", help="folder for its state, default LOCAL_AWS_HOME or .local")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start it and wait until it answers")
    start.add_argument("--port", type=int, help="port to serve on, default 4566 or a free one")
    start.add_argument(
        "--foreground", action="store_true", help="stay in the foreground, log to the terminal"
    )
    start.add_argument("--json", action="store_true", help="print the state as JSON")
    commands.add_parser("stop", help="stop it and every process it started")
    status = commands.add_parser("status", help="say whether it runs, and where")
    status.add_argument("--json", action="store_true", help="print the state as JSON")
    return parser


def _print(state: State | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(state) if state else None))
    elif state:
        print(f"The embedded AWS answers at {state.endpoint} (process {state.pid}, {state.region}).")
    else:
        print("The embedded AWS is not running.")


if __name__ == "__main__":
    sys.exit(main())
