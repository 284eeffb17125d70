"""How fast a server answers: one request, sent again and again over a fixed number of connections.

The loop is closed, each connection sends when its last answer is there, and it is bounded by time. `wrk`
does it where it is installed, as the client that costs a server on the same machine least; else a small one
of ours.
"""

import asyncio
import json
import math
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inferctl.errors import InferctlError, UnreachableError

#: A client that waits longer counts the request as failed.
TIMEOUT_SECONDS = 20
_LUA = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Request:
    """A POST that is repeated. `verify` says whom to trust over TLS, `True` the system's authorities."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    verify: ssl.SSLContext | bool = True


@dataclass(frozen=True)
class Result:
    """What was measured. Times are in milliseconds; `failed` are errors and answers other than 2xx or 3xx."""

    connections: int
    seconds: float
    requests: int
    failed: int
    p50: float
    p90: float
    p99: float
    max: float

    @property
    def per_second(self) -> float:
        """Requests answered well, a second."""
        return max(0, self.requests - self.failed) / self.seconds

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self) | {"per_second": round(self.per_second, 1)}


def client(request: Request) -> str:
    """Which client `measure` will use: `wrk`, or `asyncio`."""
    # wrk trusts any certificate, so it is given no token to send over TLS.
    return "wrk" if request.url.startswith("http://") and shutil.which("wrk") else "asyncio"


def measure(request: Request, connections: int, seconds: float) -> Result:
    """Send `request` over `connections` connections for `seconds`.

    Raises:
        UnreachableError: nothing answers there.
        InferctlError: the client failed.
    """
    if client(request) == "wrk":
        return _wrk(request, connections, seconds)
    return asyncio.run(_own(request, connections, seconds))


def _wrk(request: Request, connections: int, seconds: float) -> Result:
    with tempfile.TemporaryDirectory(prefix="inferctl-load-") as folder:
        body, headers = Path(folder) / "body", Path(folder) / "headers"
        body.write_bytes(request.body)
        headers.write_text("".join(f"{name}: {value}\n" for name, value in request.headers.items()))
        command = [shutil.which("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s"]
        done = subprocess.run(
            [*command, "--timeout", f"{TIMEOUT_SECONDS}s", "-s", str(_LUA), request.url],
            env=os.environ | {"BODY": str(body), "HEADERS": str(headers)},
            capture_output=True,
            text=True,
            check=False,
            # Linux shares processors out between sessions first: in the server's the client would be one
            # more of its processes, which no client of a service is.
            start_new_session=True,
        )
    _, found, text = done.stdout.rpartition("RESULT ")
    if not found:
        raise UnreachableError(f"wrk could not measure {request.url}: {(done.stderr or done.stdout).strip()}")
    raw = json.loads(text)
    times = {name: raw[name] / 1000 for name in ("p50", "p90", "p99", "max")}
    return Result(connections, raw["microseconds"] / 1e6, raw["requests"], raw["failed"], **times)


async def _own(request: Request, connections: int, seconds: float) -> Result:
    url = urlsplit(request.url)
    secure = None if url.scheme == "http" else request.verify
    head = [f"POST {url.path or '/'} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(request.body)}"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    message = "\r\n".join([*head, "", ""]).encode() + request.body
    times: list[float] = []
    failed = 0
    started = time.perf_counter()

    async def connection() -> None:
        nonlocal failed
        while time.perf_counter() < started + seconds:
            reader, writer = await asyncio.open_connection(url.hostname, url.port or 443, ssl=secure)
            try:
                while time.perf_counter() < started + seconds:
                    sent = time.perf_counter()
                    writer.write(message)
                    status, stays = await asyncio.wait_for(_answer(reader), TIMEOUT_SECONDS)
                    times.append(time.perf_counter() - sent)
                    failed += not 200 <= status < 400
                    if not stays:
                        break
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                times.append(time.perf_counter() - sent)
                failed += 1
            finally:
                writer.close()

    try:
        await asyncio.gather(*(connection() for _ in range(connections)))
    except (OSError, ValueError) as error:
        raise UnreachableError(f"{request.url} does not answer: {error}.") from error
    took = time.perf_counter() - started
    if not times:
        raise InferctlError(f"{request.url} was not asked once in {seconds} s.")
    ordered = sorted(1000 * each for each in times)
    p50, p90, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99))
    return Result(connections, took, len(ordered), failed, p50, p90, p99, ordered[-1])


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of the next answer, and whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(maxsplit=2)[1])
    fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    else:
        # Chunked: the sizes are hexadecimal, each on a line of its own.
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    return status, head.startswith("http/1.1") and fields.get("connection") != "close"
