"""The whole platform, deployed once per session: the same command, app and stacks as `make demo`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import ROOT
from inferctl.environment import Deployed, find


@dataclass
class Platform:
    """The deployed environment `local`, and an HTTP client that trusts it."""

    home: Path
    deployed: Deployed
    http: httpx.Client
    variables: dict[str, str]
    deployed_at: float = 0.0  # seconds since the epoch
    _tokens: dict[str, str] = field(default_factory=dict)

    def token(self, client: str = "demo") -> str:
        if client not in self._tokens:
            self._tokens[client] = self.deployed.tokens(client)()
        return self._tokens[client]

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "",
        body: bytes | None = None,
        media_type: str | None = "application/json",
        **headers: str,
    ) -> httpx.Response:
        """One request to the API; `token=""` is the demo client's, None is none."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token()}"
        if body is not None and media_type is not None:
            headers["Content-Type"] = media_type
        return self.http.request(method, self.deployed.api_url + path, content=body, headers=headers)

    def infer(self, model: str, body: bytes, **options: Any) -> httpx.Response:
        return self.call("POST", f"/v2/models/{model}/infer", body=body, **options)

    def aws(self, service: str) -> Any:
        return self.deployed.aws.client(service)

    def inferctl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "inferctl", *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            cwd=ROOT,
            env=self.variables,
        )


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("platform")
    variables = {
        **os.environ,
        "LOCAL_AWS_HOME": str(home),
        # What autoscaling takes a quarter of an hour for takes three seconds.
        "LOCAL_AWS_SCALING_MINUTE": "0.2",
        # An update that is to be rolled back bakes for as long as its alarm needs.
        "LOCAL_AWS_MAX_WAIT": "60",
    }
    command = [sys.executable, "-m", "inferctl"]
    try:
        up = subprocess.run([*command, "up"], capture_output=True, text=True, cwd=ROOT, env=variables)
        assert up.returncode == 0, up.stdout + up.stderr
        deployed = find("local", home)
        with httpx.Client(verify=deployed.verify, timeout=60) as http:
            yield Platform(home, deployed, http, variables, time.time())
    finally:
        subprocess.run(
            [*command, "down"], capture_output=True, text=True, cwd=ROOT, env=variables, check=True
        )
