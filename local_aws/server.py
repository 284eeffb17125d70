"""The server process: MiniStack with our services, served over TLS until it is told to stop.

`launcher` starts it with the environment it needs; it is not meant to be run by hand.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack import app as ministack
from ministack.core import lambda_runtime

from local_aws import extensions
from local_aws.state import Home, State, write_state


async def _serve(home: Home, port: int) -> None:
    config = Config()
    # Loopback only, and never 443, which MiniStack's own entry point would also take.
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile, config.keyfile = str(home.certificate), str(home.key)
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"

    # One line per invocation of a model says nothing that the access log does not.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    serving = asyncio.create_task(serve(ministack.app, config, shutdown_trigger=stopping.wait))
    background = asyncio.create_task(extensions.run())
    write_state(home, _state(home, port))
    try:
        await serving
    finally:
        background.cancel()
        await extensions.shutdown()
        lambda_runtime.reset()
        home.state.unlink(missing_ok=True)


def _state(home: Home, port: int) -> State:
    return State(
        pid=os.getpid(),
        endpoint=f"https://127.0.0.1:{port}",
        region=os.environ["MINISTACK_REGION"],
        account=os.environ["MINISTACK_ACCOUNT_ID"],
        ca_bundle=str(home.ca),
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )


def main() -> int:
    home = Home.resolve()
    extensions.install(home)
    asyncio.run(_serve(home, int(os.environ["GATEWAY_PORT"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
