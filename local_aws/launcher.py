"""Starting, finding and stopping the embedded AWS as a detached process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from local_aws import processes
from local_aws.certificates import ensure_certificates
from local_aws.state import (
    DEFAULT_ACCOUNT,
    DEFAULT_REGION,
    HOME_VARIABLE,
    LISTENER_VARIABLE,
    Home,
    LocalAwsError,
    State,
    read_state,
)

DEFAULT_PORT = 4566
START_TIMEOUT = 60.0  # seconds until a starting server must answer
ANSWER_TIMEOUT = 30.0  # seconds after which a server that runs is taken for dead: a busy one is not
STOP_GRACE = 10.0  # seconds a stopping server has to end its own children before all are killed
LOG_TAIL = 30  # lines of the server's log shown when it fails to start

# What a server takes over from the caller's environment: nothing of AWS, Python or the project reaches it.
_PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOG_LEVEL",
    "USER",
    "LOCAL_AWS_CONTAINERS",
    "LOCAL_AWS_MAX_INSTANCES",
    "LOCAL_AWS_MAX_WAIT",
    "LOCAL_AWS_MINUTE",
    "LOCAL_AWS_SCALING_MINUTE",
)


def start(
    port: int | None = None,
    *,
    home: str | os.PathLike[str] | None = None,
    timeout: float = START_TIMEOUT,
) -> State:
    """Start the server in a session of its own and wait until it answers; a running one is returned as it is.

    `port` None takes 4566 or, if that is in use, any free port; 0 takes any free port; another one is taken
    or refused. Raises LocalAwsError if it is in use, or if the server exits or does not answer in `timeout`
    seconds.
    """
    folder = Home.resolve(home)
    with _locked(folder):
        running = _answering(folder)
        if running:
            return running
        _end_everything(folder)
        with listen(port) as listener:
            process = subprocess.Popen(
                server_command(),
                cwd=Path(__file__).resolve().parents[1],
                env=server_environment(folder, listener),
                stdin=subprocess.DEVNULL,
                stdout=folder.log.open("wb"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[listener.fileno()],
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise LocalAwsError(_failure(folder, f"The embedded AWS exited with {process.returncode}."))
            state = read_state(folder)
            if state and state.pid == process.pid and _answers(state):
                return state
            time.sleep(0.05)
        processes.end([process.pid], folder.path, grace=1)
        raise LocalAwsError(_failure(folder, f"The embedded AWS did not answer within {timeout:.0f} s."))


def run(port: int | None = None, *, home: str | os.PathLike[str] | None = None) -> int:
    """Run the server in the foreground until it is interrupted; its exit status. It logs to stderr."""
    folder = Home.resolve(home)
    with _locked(folder):
        if _answering(folder):
            raise LocalAwsError("The embedded AWS is already running: stop it first.")
        _end_everything(folder)
        with listen(port) as listener:
            process = subprocess.Popen(
                server_command(),
                cwd=Path(__file__).resolve().parents[1],
                env=server_environment(folder, listener),
                pass_fds=[listener.fileno()],
            )
    # Ctrl-C reaches the server as well, other signals do not; this process waits for it in either case.
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            _end_everything(folder)
            return process.returncode


def stop(*, home: str | os.PathLike[str] | None = None) -> bool:
    """Stop the server and every process it started, even if it has crashed; whether anything was running."""
    folder = Home.resolve(home)
    if not folder.path.is_dir():
        return False
    with _locked(folder):
        return _end_everything(folder)


def status(*, home: str | os.PathLike[str] | None = None) -> State | None:
    """The running server, or None."""
    return _answering(Home.resolve(home))


def server_command() -> list[str]:
    return [sys.executable, "-m", "local_aws.server"]


def server_environment(home: Home, listener: socket.socket) -> dict[str, str]:
    """The whole environment of the server process; MiniStack reads its settings from it when imported."""
    ensure_certificates(home)
    port = listener.getsockname()[1]
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {
        # Node, for the Lambda functions that CDK itself brings, is installed beside this interpreter.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "TMPDIR": str(home.temporary),
        # Signing keys of user pools, which MiniStack would keep in a folder shared by all servers.
        "STATE_DIR": str(home.path / "state"),
        HOME_VARIABLE: str(home.path),
        processes.MARK_VARIABLE: str(home.path),
        "GATEWAY_PORT": str(port),
        LISTENER_VARIABLE: str(listener.fileno()),
        "BIND_HOST": "127.0.0.1",
        "AUTH": "true",
        "USE_SSL": "1",
        "MINISTACK_SSL_CERT": str(home.certificate),
        "MINISTACK_SSL_KEY": str(home.key),
        "MINISTACK_REGION": DEFAULT_REGION,
        "MINISTACK_ACCOUNT_ID": DEFAULT_ACCOUNT,
        "AWS_ACCESS_KEY_ID": DEFAULT_ACCOUNT,
        # Fresh for every server: a request signed with any other secret is refused, root's included.
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        # Inherited by the Lambda workers, which must trust this server and nobody else.
        "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
        "AWS_CA_BUNDLE": str(home.ca),
        "REQUESTS_CA_BUNDLE": str(home.ca),
        "SSL_CERT_FILE": str(home.ca),
        "NODE_EXTRA_CA_CERTS": str(home.ca),
        # Without it CloudTrail's LookupEvents knows nothing.
        "CLOUDTRAIL_RECORDING": "1",
        # Services that would open ports of their own.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "DOCKER_HOST": f"unix://{home.path}/no-docker.sock",
    }


def listen(port: int | None) -> socket.socket:
    """The socket to serve on, for the server to inherit: two starting at once cannot meet on a port.

    Port 0 means any free one, None 4566 or any. Raises LocalAwsError if the given one is in use.
    """
    for candidate in (DEFAULT_PORT, 0) if port is None else (port,):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", candidate))
            # Listening takes the port; bound sockets can still share it.
            listener.listen()
        except OSError:
            listener.close()
            continue
        return listener
    raise LocalAwsError(f"Port {port} is in use: choose another with --port, or omit it for a free one.")


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[None]:
    """One start or stop at a time: a second caller waits and then finds the first one's result."""
    home.path.mkdir(parents=True, exist_ok=True)
    home.path.chmod(0o700)
    with home.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _answering(home: Home) -> State | None:
    state = read_state(home)
    if state and processes.is_marked(state.pid, home.path) and _answers(state):
        return state
    return None


def _answers(state: State) -> bool:
    try:
        context = ssl.create_default_context(cafile=state.ca_bundle)
        health = f"{state.endpoint}/_ministack/health"
        with urllib.request.urlopen(health, timeout=ANSWER_TIMEOUT, context=context) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _end_everything(home: Home) -> bool:
    """End what is left of a server and forget it. The server goes first, to end its children itself."""
    state, left = read_state(home), processes.marked(home.path)
    if left:
        first = [state.pid] if state and state.pid in left else left
        processes.end(first, home.path, STOP_GRACE)
    home.state.unlink(missing_ok=True)
    for folder in (home.temporary, home.endpoints):
        _remove(folder)
        folder.mkdir(parents=True)
    return bool(left)


def _remove(folder: Path) -> None:
    """Remove a folder that may hold read-only model folders."""
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _failure(home: Home, reason: str) -> str:
    lines = home.log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if home.log.is_file() else []
    return "\n".join([f"{reason} The end of {home.log}:", *(f"  {line}" for line in lines)])
