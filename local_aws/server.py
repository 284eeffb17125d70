"""The server process: MiniStack with our services, served over TLS until it is told to stop.

`launcher` starts it with the environment it needs; it is not meant to be run by hand.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import traceback
from typing import NoReturn

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack import app as ministack
from ministack.core import lambda_runtime

from local_aws import extensions
from local_aws.state import LISTENER_VARIABLE, Home, State, write_state


async def _serve(home: Home, port: int) -> None:
    config = Config()
    # The launcher's socket: loopback only, and never 443, which MiniStack's own entry point would also take.
    config.bind = [f"fd://{os.environ[LISTENER_VARIABLE]}"]
    config.certfile, config.keyfile = str(home.certificate), str(home.key)
    config.keep_alive_timeout = 75
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"

    # One line per invocation of a model says nothing that the access log does not.
    logging.getLogger("httpx").setLevel(logging.WARNING)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    # Hypercorn's own way to stop waits for the clients to hang up, so it is not told to.
    serving = loop.create_task(serve(ministack.app, config, shutdown_trigger=asyncio.Event().wait))
    background = loop.create_task(extensions.run())
    told = loop.create_task(stopping.wait())
    write_state(home, _state(home, port))
    try:
        await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
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


async def _run(home: Home, port: int) -> NoReturn:
    """Serve, clean up and exit at once: there is nothing to save, and MiniStack's threads to wait for."""
    try:
        await _serve(home, port)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> NoReturn:
    home = Home.resolve()
    extensions.install(home)
    asyncio.run(_run(home, int(os.environ["GATEWAY_PORT"])))
    raise AssertionError("the server exits by itself")


if __name__ == "__main__":
    main()
