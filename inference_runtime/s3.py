"""Objects of S3, read and written by the standard library alone.

boto3 does this and much more, and importing it was two thirds of a function's cold start
(docs/performance.md). What is needed is a signature (version 4), three attempts, and what Lambda and the
embedded AWS say in the environment:

    AWS_REGION
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN    with SnapStart, instead of these
    AWS_ENDPOINT_URL, AWS_CA_BUNDLE, https_proxy                             optional

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

#: Together well inside the ten seconds of a Lambda's init, so that a network fault is answered and not timed
#: out.
ATTEMPTS, TIMEOUT_SECONDS, PAUSE_SECONDS = 3, 3.0, 0.2
_EMPTY = hashlib.sha256(b"").hexdigest()
_CHUNK = 1 << 20
#: Where a partition's names end, by how its regions' begin; the others' end in amazonaws.com.
_SUFFIXES = {
    "cn-": "amazonaws.com.cn", "eusc-": "amazonaws.eu", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov", "eu-isoe-": "cloud.adc-e.uk",
}  # fmt: skip


class S3Error(Exception):
    """The object cannot be read or written; the message says why, in S3's words."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whose name requests are signed in."""

    key_id: str
    secret: str
    token: str | None


def download(bucket: str, key: str, path: Path) -> None:
    """Write an object into a file.

    Raises:
        S3Error: three attempts failed, or S3 refuses.
    """

    def save(response: http.client.HTTPResponse) -> None:
        with path.open("wb") as file:
            shutil.copyfileobj(response, file, _CHUNK)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)

    _ask("GET", bucket, key, save)


def upload(bucket: str, key: str, body: bytes, content_type: str) -> None:
    """Write an object.

    Raises:
        S3Error: three attempts failed, or S3 refuses.
    """
    _ask("PUT", bucket, key, lambda response: response.read(), body, content_type)


def address(bucket: str, key: str, environment: Mapping[str, str]) -> str:
    """Where an object is."""
    own = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if own:
        return f"{own.rstrip('/')}/{bucket}/{quote(key)}"
    region = _region(environment)
    suffix = next((end for start, end in _SUFFIXES.items() if region.startswith(start)), "amazonaws.com")
    if "." in bucket:
        # S3's certificate has one label before its own.
        return f"https://s3.{region}.{suffix}/{bucket}/{quote(key)}"
    return f"https://{bucket}.s3.{region}.{suffix}/{quote(key)}"


def signed(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body_sha256: str,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """The headers of a request for `url`, which has no query; `headers` have lower-case names."""
    parts, stamp = urlsplit(url), now.strftime("%Y%m%dT%H%M%SZ")
    found = {**headers, "host": parts.netloc, "x-amz-content-sha256": body_sha256, "x-amz-date": stamp}
    if credentials.token:
        found["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(found))
    lines = "".join(f"{name}:{found[name].strip()}\n" for name in sorted(found))
    request = f"{method}\n{parts.path}\n\n{lines}\n{names}\n{body_sha256}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"{credentials.key_id}/{scope}"
    found["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={key.hex()}"
    )
    return found


def _ask(
    method: str,
    bucket: str,
    key: str,
    use: Callable[[http.client.HTTPResponse], object],
    body: bytes | None = None,
    content_type: str | None = None,
) -> None:
    """Let `use` have the answer: anew where it, or the answer, fails."""
    url, region = address(bucket, key, os.environ), _region(os.environ)
    headers = {"content-type": content_type} if content_type else {}
    body_sha256 = _EMPTY if body is None else hashlib.sha256(body).hexdigest()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            said = signed(method, url, headers, body_sha256, _credentials(), region, datetime.now(UTC))
            request = urllib.request.Request(url, body, said, method=method)  # noqa: S310 (ours or the operator's)
            with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
                use(response)
            return
        except urllib.error.HTTPError as error:
            again = error.code >= 500 or error.code == 429
            reason = f"{error.code} {error.reason} {_code(error)}".strip()
        except (OSError, http.client.HTTPException) as error:
            again, reason = True, f"{type(error).__name__}: {error}"
        if attempt == ATTEMPTS or not again:
            raise S3Error(reason)
        time.sleep(PAUSE_SECONDS * attempt)


def _code(error: urllib.error.HTTPError) -> str:
    """What S3 calls the error, such as AccessDenied."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        text = error.read(4096).decode(errors="replace")
        return text.partition("<Code>")[2].partition("</Code>")[0]
    return ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A signature is for one address, and is shown to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


@cache
def _opener() -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects())


def _credentials() -> Credentials:
    """As Lambda gives them. Asked for each time, as they expire."""
    uri = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not uri:
        own = os.environ
        return Credentials(
            own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"], own.get("AWS_SESSION_TOKEN")
        )
    token = os.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    request = urllib.request.Request(uri, headers={"authorization": token})  # noqa: S310 (Lambda's own, on this host)
    # Never by a proxy.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=TIMEOUT_SECONDS) as response:
        found = json.load(response)
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])


def _region(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_REGION") or environment["AWS_DEFAULT_REGION"]
