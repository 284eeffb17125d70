"""A release on Lambda: a version of the function with the artifact in its environment, and the weights of the
alias `live`.

A version is what it was when it was published, so going back is a change of the alias, which takes seconds.
The function itself ($LATEST), from which the next deployment publishes, always says the live artifact.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import history
from outcomes import NotYet, Rejected
from settings import Settings

ALIAS = "live"
ARTIFACT = "MODEL_SHA256"
LOCATION = "MODEL_URI"
SAME = (
    "CodeSha256", "MemorySize", "Timeout", "Role", "Runtime", "Handler", "EphemeralStorage", "Layers",
    "Architectures", "TracingConfig", "LoggingConfig",
)  # fmt: skip
"""What two versions have in common that differ in their artifact only, besides the environment."""


@dataclass
class OnLambda:
    """One CPU model's function."""

    settings: Settings

    def __post_init__(self) -> None:
        self._lambda: Any = boto3.client("lambda")

    # The steps, in the protocol's order.

    def stage(self, sha256: str, uri: str) -> dict[str, Any]:
        """A published version that runs the artifact, ready to be invoked."""
        version = self._version_with(sha256) or self._publish(sha256, uri)
        found = self._configuration(version)
        if found["State"] == "Pending":
            raise NotYet(f"version {version} is being made ready")
        if found["State"] == "Failed":
            raise Rejected(f"version {version} could not be made ready: {found.get('StateReason')}")
        said = metadata(self.settings, version)
        if said.get("parameters", {}).get("artifact_sha256") != sha256:
            detail = said.get("detail") or said.get("errorMessage") or "it says it runs another artifact"
            raise Rejected(f"it does not load: {detail}. The log of {self.settings.name} says why")
        return {"version": version, "before": self._alias()["FunctionVersion"]}

    def shift(self, staged: dict[str, Any], percent: int) -> None:
        """Give the new version its share of the requests; 0: all of them."""
        if percent:
            self._suspend_provisioned_concurrency()
            self._route(staged["before"], {staged["version"]: percent / 100})
        else:
            self._route(staged["version"])

    def settled(self, staged: dict[str, Any]) -> bool:
        """Whether nothing but time is waited for: weights hold from one request to the next."""
        return True

    def promote(self, staged: dict[str, Any]) -> None:
        """Give the new version all requests."""
        self._route(staged["version"])

    def restore(self, sha256: str, uri: str) -> None:
        """Let the version that runs the live artifact have all requests, at once."""
        alias = self._alias()
        now = alias["FunctionVersion"]
        if self._runs(now) != sha256:
            now = self._version_with(sha256) or self.stage(sha256, uri)["version"]
        if now != alias["FunctionVersion"] or alias.get("RoutingConfig"):
            self._route(now)
        self._let_latest_say(sha256, uri)

    def finish(self, sha256: str, uri: str, kept: Sequence[str]) -> None:
        """Leave the function as a deployment expects it; of other versions only the latest that run the
        artifacts in `kept` stay: each costs where it has a snapshot.
        """
        self._let_latest_say(sha256, uri)
        self._resume_provisioned_concurrency()
        needed = {self._alias()["FunctionVersion"], *map(self._version_with, kept)}
        for old in self._versions():
            if old["Version"] not in needed:
                self._lambda.delete_function(FunctionName=self.settings.name, Qualifier=old["Version"])

    def capacity(self) -> int:
        """How many answers in a row prove that all of it runs the new version."""
        return 1

    # The function.

    def _publish(self, sha256: str, uri: str) -> str:
        self._let_latest_say(sha256, uri)
        made = self._lambda.publish_version(FunctionName=self.settings.name, Description=sha256)
        return str(made["Version"])

    def _version_with(self, sha256: str) -> str | None:
        """The latest version that runs the artifact, configured as the function is now."""
        latest = self._configuration("$LATEST")
        for version in self._versions():
            if _artifact(version) == sha256 and _alike(version, latest):
                return str(version["Version"])
        return None

    def _let_latest_say(self, sha256: str, uri: str) -> None:
        latest = self._configuration("$LATEST")
        if latest.get("LastUpdateStatus") == "InProgress":
            raise NotYet("the function is being updated")
        variables = latest["Environment"]["Variables"]
        wanted = {**variables, ARTIFACT: sha256, LOCATION: uri}
        if variables == wanted:
            return
        self._lambda.update_function_configuration(
            FunctionName=self.settings.name,
            Environment={"Variables": wanted},
            RevisionId=latest["RevisionId"],
        )
        self._lambda.get_waiter("function_updated").wait(
            FunctionName=self.settings.name, WaiterConfig={"Delay": 1, "MaxAttempts": 50}
        )

    def _versions(self) -> list[dict[str, Any]]:
        """The published versions, the latest first."""
        pages = self._lambda.get_paginator("list_versions_by_function").paginate(
            FunctionName=self.settings.name
        )
        found = [version for page in pages for version in page["Versions"] if version["Version"] != "$LATEST"]
        return sorted(found, key=lambda version: int(version["Version"]), reverse=True)

    def _configuration(self, version: str) -> dict[str, Any]:
        found: dict[str, Any] = self._lambda.get_function_configuration(
            FunctionName=self.settings.name, Qualifier=version
        )
        return found

    def _runs(self, version: str) -> str | None:
        return _artifact(self._configuration(version))

    # The alias.

    def _alias(self) -> dict[str, Any]:
        alias: dict[str, Any] = self._lambda.get_alias(FunctionName=self.settings.name, Name=ALIAS)
        return alias

    def _route(self, version: str, weights: dict[str, float] | None = None) -> None:
        alias = self._alias()
        now = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        if (alias["FunctionVersion"], now) == (version, weights or {}):
            return
        self._lambda.update_alias(
            FunctionName=self.settings.name,
            Name=ALIAS,
            FunctionVersion=version,
            RoutingConfig={"AdditionalVersionWeights": weights or {}},
            RevisionId=alias["RevisionId"],
        )

    def _suspend_provisioned_concurrency(self) -> None:
        """Lambda refuses it on an alias with weights: it comes back when the release is over."""
        where = {"FunctionName": self.settings.name, "Qualifier": ALIAS}
        try:
            found = self._lambda.get_provisioned_concurrency_config(**where)
        except self._lambda.exceptions.ProvisionedConcurrencyConfigNotFoundException:
            return
        history.remember(self.settings.model, suspended=found["RequestedProvisionedConcurrentExecutions"])
        self._lambda.delete_provisioned_concurrency_config(**where)

    def _resume_provisioned_concurrency(self) -> None:
        suspended = history.remembered(self.settings.model).get("suspended")
        if suspended:
            self._lambda.put_provisioned_concurrency_config(
                FunctionName=self.settings.name,
                Qualifier=ALIAS,
                ProvisionedConcurrentExecutions=int(suspended),
            )


def metadata(settings: Settings, qualifier: str) -> dict[str, Any]:
    """What a version, or the alias, answers to who asks for the model's metadata; else the error."""
    path = f"/v2/models/{settings.model}"
    event = {
        "httpMethod": "GET",
        "path": path,
        "resource": path,
        "headers": {},
        "body": None,
        "isBase64Encoded": False,
        "requestContext": {"requestId": "release"},
    }
    answer = boto3.client("lambda").invoke(
        FunctionName=settings.name, Qualifier=qualifier, Payload=json.dumps(event).encode()
    )
    payload = json.load(answer["Payload"])
    document: dict[str, Any] = payload if answer.get("FunctionError") else json.loads(payload["body"])
    return document


def _artifact(configuration: dict[str, Any]) -> str | None:
    variables = configuration.get("Environment", {}).get("Variables", {})
    return str(variables[ARTIFACT]) if ARTIFACT in variables else None


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two configurations differ in their artifact only."""

    def rest(configuration: dict[str, Any]) -> tuple[Any, ...]:
        variables = configuration.get("Environment", {}).get("Variables", {})
        kept = {name: value for name, value in variables.items() if name not in (ARTIFACT, LOCATION)}
        return (kept, *(configuration.get(name) for name in SAME))

    return rest(one) == rest(other)
