"""A small client of the platform: Open Inference Protocol v2 over HTTPS, with OAuth2 client credentials.

tokens = ClientCredentials(token_url, client_id, client_secret)
with Client("https://<id>.execute-api.us-east-1.amazonaws.com/dev", tokens) as client:
    text = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Hello"]}
    client.infer("text-embedding", {"inputs": [text]})
"""

import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote

import httpx

from inferctl.errors import CredentialsError, ProblemError, UnreachableError

Json = dict[str, Any]
Verify = bool | Any
"""What httpx takes: True, or an `ssl.SSLContext` with the authorities to trust."""

TIMEOUT = httpx.Timeout(60, connect=10)
RETRIES = 3  # further attempts of a GET
LONGEST_WAIT = 30.0  # seconds; an answer that asks for a longer pause is given to the caller at once
RETRIED = frozenset({429, 503})
TOKEN_SHARE = 0.75  # of a token's lifetime in which it is used; then the next one is taken


class ClientCredentials:
    """Takes access tokens from an OAuth2 token endpoint (RFC 6749, 4.4), and keeps each for most of its life.

    Calling it gives a token. Safe to share between threads.

    Args:
        url: the token endpoint.
        client_id, client_secret: of the app client.
        scopes: those to ask for; none asks for all that the client has.
        headers: sent with each request for a token.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        verify: Verify = True,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._auth = httpx.BasicAuth(client_id, client_secret)
        self._form = {"grant_type": "client_credentials"} | ({"scope": " ".join(scopes)} if scopes else {})
        self._http = _http(verify, transport, headers)
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._fresh_until = float("-inf")
        self.expires_in = 0
        """Seconds for which the latest token was issued."""

    def __call__(self) -> str:
        """A token that is still good for a while.

        Raises CredentialsError when the endpoint refuses the client, UnreachableError for no answer.
        """
        with self._lock:
            if self._clock() >= self._fresh_until:
                asked = self._clock()
                self._token, self.expires_in = self._take()
                self._fresh_until = asked + TOKEN_SHARE * self.expires_in
            return self._token

    def _take(self) -> tuple[str, int]:
        try:
            response = self._http.post(self._url, data=self._form, auth=self._auth)
        except httpx.TransportError as error:
            raise UnreachableError(f"The token endpoint {self._url} does not answer: {error}.") from error
        document = _json_object(response) or {}
        if response.status_code >= 500:
            raise UnreachableError(f"The token endpoint {self._url} answered {response.status_code}.")
        if response.status_code != 200 or "access_token" not in document:
            reason = document.get("error_description") or document.get("error") or response.status_code
            raise CredentialsError(f"The token endpoint refused the client: {reason}.")
        return str(document["access_token"]), int(document.get("expires_in", 0))


class Client:
    """Calls models. Errors of the service raise ProblemError; no answer raises UnreachableError.

    A GET is repeated up to three times after 429, 503 or a lost connection, after the pause that
    `Retry-After` asks for, or half a second, doubled each time. An inference is never repeated: it may have
    been done.

    Args:
        base_url: the API's address with its stage, without `/v2`.
        tokens: gives an access token for each request; None sends none.
        verify: which certificate authorities to trust, as httpx takes it.
    """

    def __init__(
        self,
        base_url: str,
        tokens: Callable[[], str] | None,
        verify: Verify = True,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._tokens = tokens
        self._sleep = sleep
        self._http = _http(verify, transport, {"Accept": "application/json"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[Json]:
        """The models that the environment serves, with their target and live artifact."""
        return list(self._get("/v2/models")["models"])

    def metadata(self, model: str) -> Json:
        """The model's signature and versions."""
        return self._get(_path(model))

    def ready(self, model: str) -> bool:
        """Whether the model takes requests now; asked once, without a retry."""
        try:
            self._send("GET", _path(model, "/ready"))
        except ProblemError as problem:
            if problem.status == 503:
                return False
            raise
        return True

    def infer(self, model: str, request: Mapping[str, Any]) -> Json:
        """Answer to an inference request: `{"inputs": [{"name", "datatype", "shape", "data"}, ...]}`."""
        return _document(self._send("POST", _path(model, "/infer"), json=request))

    def _get(self, path: str) -> Json:
        for attempt in range(RETRIES):
            try:
                return _document(self._send("GET", path))
            except (ProblemError, UnreachableError) as error:
                pause = _pause(error, attempt)
                if pause is None:
                    raise
            self._sleep(pause)
        return _document(self._send("GET", path))

    def _send(self, method: str, path: str, json: Mapping[str, Any] | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._tokens()}"} if self._tokens else {}
        try:
            response = self._http.request(method, self.base_url + path, json=json, headers=headers)
        except httpx.TransportError as error:
            raise UnreachableError(
                f"{self.base_url} does not answer: {error or type(error).__name__}."
            ) from error
        if response.is_success:
            return response
        raise _problem(response)


def _path(model: str, suffix: str = "") -> str:
    return f"/v2/models/{quote(model, safe='')}{suffix}"


def _http(
    verify: Verify, transport: httpx.BaseTransport | None, headers: Mapping[str, str] | None
) -> httpx.Client:
    # A private authority means the embedded AWS on loopback, which no proxy can reach.
    trust_env = verify is True
    return httpx.Client(
        verify=verify, transport=transport, headers=headers, timeout=TIMEOUT, trust_env=trust_env
    )


def _json_object(response: httpx.Response) -> Json | None:
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _document(response: httpx.Response) -> Json:
    document = _json_object(response)
    if document is None:
        raise UnreachableError(f"{response.url} answered {response.status_code}, but not with a JSON object.")
    return document


def _problem(response: httpx.Response) -> ProblemError:
    """The problem document of an error answer, or what can be said of an answer that is something else."""
    document = _json_object(response) or {}
    return ProblemError(
        status=response.status_code,
        title=str(document.get("title") or response.reason_phrase or "Error"),
        detail=str(document.get("detail") or document.get("message") or "The answer gave no detail."),
        type=str(document.get("type") or "about:blank"),
        request_id=response.headers.get("x-request-id") or document.get("request_id"),
        retry_after=_seconds(response.headers.get("retry-after")),
    )


def _pause(error: ProblemError | UnreachableError, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None where there is to be none."""
    pause = 0.5 * 2.0**attempt
    if isinstance(error, ProblemError):
        if error.status not in RETRIED:
            return None
        pause = pause if error.retry_after is None else error.retry_after
    return pause if pause <= LONGEST_WAIT else None


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` (RFC 9110, 10.2.3) as seconds from now: it is a number of seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
