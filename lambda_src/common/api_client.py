"""A client of the platform's own API, as every other: a token by client credentials, and HTTPS.

Environment: SECRET_ID, the client's credentials in Secrets Manager: client_id, client_secret, token_url,
scope.
"""

import base64
import json
import os
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3

TIMEOUT_SECONDS = 30
KEPT_SHARE = 0.75
LONGEST_ANSWER = 8 * 1024 * 1024


class CallFailed(Exception):
    """A call was not answered as a client needs it; the message says why, and holds no payload."""


@dataclass
class Token:
    """An access token, taken again when three quarters of its life are over: each is billed."""

    value: str = ""
    until: float = 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self.until:
            held = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["SECRET_ID"])
            credentials = json.loads(held["SecretString"])
            pair = f"{credentials['client_id']}:{credentials['client_secret']}"
            form = {"grant_type": "client_credentials", "scope": credentials["scope"]}
            answer = call(
                credentials["token_url"],
                {
                    "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                urlencode(form).encode(),
            )
            self.value = answer["access_token"]
            self.until = time.monotonic() + KEPT_SHARE * float(answer["expires_in"])
        return self.value

    def forget(self) -> None:
        """Take a new one next time: this one was refused, or its secret was replaced."""
        self.until = 0.0


def call(url: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
    """The JSON document that an address answers with; raises CallFailed for any status but 200."""
    if not url.startswith("https://"):
        raise CallFailed(f"{url} is not an https:// address")
    trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    request = Request(url, data=body, headers=headers)  # noqa: S310 (checked above)
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS, context=trusted) as response:  # noqa: S310
            document: dict[str, Any] = json.loads(response.read(LONGEST_ANSWER))
            return document
    except HTTPError as error:
        request_id = error.headers.get("x-request-id") or error.headers.get("x-amzn-requestid")
        raise CallFailed(f"status {error.code}, request {request_id}") from error
