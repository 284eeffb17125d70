"""What every check is given, and what it gives back."""

import threading
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from botocore.config import Config

from catalog import Environment, GpuModel, ModelSpec
from catalog.names import Names
from inferctl.environment import Aws

State = Literal["ok", "warning", "failed", "unknown"]
OK: State = "ok"
WARNING: State = "warning"  # it deploys, and something is worth knowing
FAILED: State = "failed"  # it would not deploy, or not serve
UNKNOWN: State = "unknown"  # AWS did not tell

# A preflight takes seconds: what does not answer in these is unknown.
_PATIENCE = Config(connect_timeout=3, read_timeout=20, retries={"total_max_attempts": 3})


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it. `quota` is the code with which to raise a quota."""

    check: str
    state: State
    found: str
    remedy: str = ""
    quota: str | None = None

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Preflight:
    """An environment, its models, and the account to ask."""

    environment: Environment
    models: tuple[ModelSpec, ...]
    aws: Aws
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client that does not wait for long, in the environment's region or another."""
        key = (service, region or self.environment.region)
        with self._lock:  # a boto3 session makes one client at a time
            if key not in self._clients:
                options = dict(self.aws.options)
                options["config"] = _PATIENCE.merge(options.get("config", Config()))
                self._clients[key] = self.aws.session.client(service, region_name=key[1], **options)
            return self._clients[key]

    @property
    def names(self) -> Names:
        return Names(self.environment.name)

    @property
    def config(self) -> str:
        """The file that remedies speak of."""
        return f"config/{self.environment.name}.yaml"

    @property
    def gpu_models(self) -> list[GpuModel]:
        return [model for model in self.models if isinstance(model, GpuModel)]
