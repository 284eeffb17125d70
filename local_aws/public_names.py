"""The embedded AWS by its public names, for functions: `<api>.execute-api.<region>.amazonaws.com`, say.

On AWS a function resolves the address that clients use. Here no name service knows it, so functions reach it
through a proxy on loopback that opens a tunnel to this server, and to nothing else, whatever AWS name is
asked for. TLS is between function and server: the certificate bears these names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from urllib.parse import urlsplit

from ministack import app

_OURS = re.compile(r"CONNECT [a-z0-9.-]+\.(amazonaws|amazoncognito)\.com:443 HTTP/1\.[01]\r\n", re.IGNORECASE)
_HEAD_BYTES = 8192

_listener: socket.socket | None = None


def install() -> str:
    """Take a port for the proxy; returns its address, which functions get as `https_proxy`."""
    global _listener
    _listener = socket.create_server(("127.0.0.1", 0))
    # MiniStack knows an API's host by its own domain only.
    app._EXECUTE_API_RE = re.compile(
        r"^([a-z0-9]+)\.execute-api\.(?:localhost|[a-z0-9-]+\.amazonaws\.com)(?::\d+)?$"
    )
    return f"http://127.0.0.1:{_listener.getsockname()[1]}"


async def run() -> None:
    """Open tunnels until cancelled."""
    assert _listener is not None
    server = await asyncio.start_server(_tunnel, sock=_listener, limit=_HEAD_BYTES)
    async with server:
        await server.serve_forever()


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if _OURS.match(head):
            here = urlsplit(os.environ["AWS_ENDPOINT_URL"])
            back, forth = await asyncio.open_connection(here.hostname, here.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, forth), _copy(back, writer))
        else:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            await writer.drain()
    writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
