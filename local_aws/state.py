"""What a running embedded AWS is: where it listens, whom it trusts, and the folder that holds it all."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

HOME_VARIABLE = "LOCAL_AWS_HOME"
LISTENER_VARIABLE = "LOCAL_AWS_LISTENER"  # the inherited descriptor of the socket to serve on
DEFAULT_ACCOUNT = "000000000000"
DEFAULT_REGION = "us-east-1"


class LocalAwsError(Exception):
    """The embedded AWS could not do what was asked; the message says why and what to do."""


@dataclass(frozen=True)
class State:
    """A running server, as written to `state.json` by the server once it answers.

    `ca_bundle` is the path of the certificate authority that clients must trust; `secret_access_key` is that
    of the account's root user, so the file is readable by its owner only.
    """

    pid: int
    endpoint: str
    region: str
    account: str
    ca_bundle: str
    access_key_id: str
    secret_access_key: str

    @property
    def port(self) -> int:
        return int(self.endpoint.rsplit(":", 1)[1])


@dataclass(frozen=True)
class Home:
    """The folder of one embedded AWS. Every path in it is named here and nowhere else."""

    path: Path

    @classmethod
    def resolve(cls, path: str | os.PathLike[str] | None = None) -> Home:
        """The given folder, else `LOCAL_AWS_HOME`, else `.local` beside this package."""
        chosen = path or os.environ.get(HOME_VARIABLE) or Path(__file__).resolve().parents[1] / ".local"
        return cls(Path(chosen).resolve())

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    @property
    def ca(self) -> Path:
        return self.path / "ca.pem"

    @property
    def certificate(self) -> Path:
        return self.path / "server.pem"

    @property
    def key(self) -> Path:
        return self.path / "server-key.pem"

    @property
    def lock(self) -> Path:
        return self.path / "start.lock"

    @property
    def rights(self) -> Path:
        """What roles were allowed and refused, a line of JSON for each when it first was."""
        return self.path / "rights.jsonl"

    @property
    def temporary(self) -> Path:
        """Scratch space of the server and its Lambda workers, emptied at start and stop."""
        return self.path / "tmp"

    @property
    def endpoints(self) -> Path:
        """Model folders and logs of the SageMaker endpoints' processes."""
        return self.path / "endpoints"

    @property
    def lambda_runtime(self) -> Path:
        """The interpreter and packages that a Lambda worker sees besides its own zip."""
        return self.path / "lambda-runtime"


def read_state(home: Home) -> State | None:
    """The recorded state, or None when there is none that can be read."""
    try:
        recorded = json.loads(home.state.read_text())
        return State(**{field.name: recorded[field.name] for field in dataclasses.fields(State)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Home, state: State) -> None:
    """Record `state` atomically, readable by its owner only."""
    staging = home.state.with_suffix(".tmp")
    staging.unlink(missing_ok=True)
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(state), file, indent=2)
    staging.replace(home.state)


def environment(state: State) -> dict[str, str]:
    """The variables that point boto3, the AWS CLI and the CDK CLI at this server and at nothing else.

    A client that trusts only this certificate authority cannot reach the real AWS by mistake.
    """
    return {
        "AWS_ENDPOINT_URL": state.endpoint,
        "AWS_CA_BUNDLE": state.ca_bundle,
        "NODE_EXTRA_CA_CERTS": state.ca_bundle,
        "AWS_ACCESS_KEY_ID": state.access_key_id,
        "AWS_SECRET_ACCESS_KEY": state.secret_access_key,
        "AWS_REGION": state.region,
        "AWS_DEFAULT_REGION": state.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DEFAULT_ACCOUNT": state.account,
        "CDK_DEFAULT_REGION": state.region,
    }
