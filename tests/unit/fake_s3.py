"""As much of S3 as the runtime asks: a web server over `<bucket>/<key>`."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"


@dataclass
class FakeS3:
    """What is stored, by `<bucket>/<key>`, and what was asked."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, Message]] = field(default_factory=list)
    #: Answers with these come first: a status, or 0 for a body that ends early.
    troubles: deque[int] = field(default_factory=deque)

    def publish(self, folder: Path, prefix: str) -> None:
        for path in folder.iterdir():
            self.objects[f"{prefix}/{path.name}"] = path.read_bytes()


@contextmanager
def running() -> Iterator[FakeS3]:
    found = FakeS3()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(found.objects.get(self.path[1:]))

        def do_PUT(self) -> None:
            found.objects[self.path[1:]] = self.rfile.read(int(self.headers["content-length"]))
            self._answer(b"")

        def _answer(self, content: bytes | None) -> None:
            found.asked.append((self.command, self.path, self.headers))
            trouble = found.troubles.popleft() if found.troubles else None
            status = trouble or (404 if content is None else 200)
            body = content if status == 200 and content is not None else NO_SUCH_KEY
            self.send_response(status)
            self.send_header("content-length", str(len(body) + (trouble == 0)))
            self.send_header("location", "http://127.0.0.1:9/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
        thread.join()


@contextmanager
def configured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[FakeS3]:
    """The same, in the environment of the code that is tested, with `variables`."""
    with running() as found:
        own = {
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": found.url,
        }  # fmt: skip
        for name, value in (own | variables).items():
            monkeypatch.setenv(name, value)
        yield found
