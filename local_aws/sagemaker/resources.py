"""SageMaker's resources as they are remembered, by account and region."""

from __future__ import annotations

import asyncio
import datetime
from collections import defaultdict
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ministack.core import responses

from local_aws.wire import Json, validation_error

if TYPE_CHECKING:
    from local_aws.sagemaker.fleet import Fleet

Found = TypeVar("Found")


@dataclass(frozen=True)
class Scope:
    """Whose resource it is, and where."""

    account: str
    region: str

    @classmethod
    def current(cls) -> Scope:
        """The scope of the request that is being answered."""
        return cls(responses.get_account_id(), responses.get_region())

    def arn(self, kind: str, name: str) -> str:
        # SageMaker's ARNs are lower case, whatever the name's spelling.
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{kind}/{name.lower()}"


@dataclass
class Model:
    """A model: `request` is what CreateModel was given."""

    name: str
    arn: str
    request: Json
    created: datetime.datetime

    @property
    def containers(self) -> list[Json]:
        primary = self.request.get("PrimaryContainer")
        return [primary] if primary else list(self.request.get("Containers") or [])


@dataclass
class EndpointConfig:
    """An endpoint configuration: `request` is what CreateEndpointConfig was given."""

    name: str
    arn: str
    request: Json
    created: datetime.datetime

    @property
    def variants(self) -> list[Json]:
        return list(self.request["ProductionVariants"])

    @property
    def hosts_components(self) -> bool:
        """Whether it has no models of its own, but room for inference components."""
        return not any(variant.get("ModelName") for variant in self.variants)


@dataclass
class Variant:
    """A production variant as it stands: weight and count may differ from the configuration's."""

    name: str
    weight: float
    desired_weight: float
    instances: int
    desired_instances: int
    images: list[Json] = field(default_factory=list)


@dataclass
class Served:
    """What an endpoint and an inference component have in common.

    `fleet` serves; `incoming` is an update's fleet, with its share of the traffic (0..1). `fleets` are all
    that have processes, serving or not; `deploying` is the deployment that is under way.
    """

    scope: Scope
    name: str
    arn: str
    created: datetime.datetime
    modified: datetime.datetime
    _: KW_ONLY
    status: str = "Creating"
    failure: str | None = None
    deployment: Json | None = None
    fleet: Fleet | None = None
    incoming: Fleet | None = None
    incoming_share: float = 0.0
    fleets: list[Fleet] = field(default_factory=list)
    deploying: asyncio.Task[None] | None = None

    def become(self, status: str, failure: str | None = None) -> None:
        self.status, self.failure, self.modified = status, failure, now()


@dataclass
class Endpoint(Served):
    """An endpoint."""

    config: EndpointConfig
    variants: dict[str, Variant] = field(default_factory=dict, kw_only=True)


@dataclass
class Component(Served):
    """An inference component: a model whose copies run on an endpoint's instances.

    `copies` run, of the `desired` ones; `fleet` is None while there are none.
    """

    endpoint: str
    variant: str
    specification: Json
    _: KW_ONLY
    desired: int = 0
    copies: int = 0


@dataclass
class Package:
    """A model package of a group; `said` is what was said of it and is answered as it was."""

    group: str
    version: int
    arn: str
    said: Json
    approval: str
    created_by: Json
    created: datetime.datetime
    modified: datetime.datetime | None = None
    modified_by: Json | None = None

    @property
    def name(self) -> str:
        return f"{self.group}/{self.version}"


@dataclass
class PackageGroup:
    """A model package group; a version's number is never given twice."""

    name: str
    arn: str
    description: str | None
    created_by: Json
    created: datetime.datetime
    packages: dict[int, Package] = field(default_factory=dict)
    last_version: int = 0


@dataclass
class Resources:
    """All resources of one scope by lower-case name, for names differ by more than case, and tags by ARN."""

    models: dict[str, Model] = field(default_factory=dict)
    configs: dict[str, EndpointConfig] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    components: dict[str, Component] = field(default_factory=dict)
    package_groups: dict[str, PackageGroup] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    def model(self, scope: Scope, name: str) -> Model:
        return _find(self.models, name, "model", scope.arn("model", name))

    def config(self, scope: Scope, name: str) -> EndpointConfig:
        return _find(self.configs, name, "endpoint configuration", scope.arn("endpoint-config", name))

    def endpoint(self, scope: Scope, name: str) -> Endpoint:
        return _find(self.endpoints, name, "endpoint", scope.arn("endpoint", name))

    def component(self, scope: Scope, name: str) -> Component:
        return _find(self.components, name, "inference component", scope.arn("inference-component", name))

    def package_group(self, scope: Scope, name: str) -> PackageGroup:
        if name.lower() not in self.package_groups:
            arn = scope.arn("model-package-group", name)
            raise validation_error(f"ModelPackageGroup {arn} does not exist.")
        return self.package_groups[name.lower()]

    def hosted_by(self, endpoint: str) -> list[Component]:
        """The inference components of an endpoint."""
        return [one for one in self.components.values() if one.endpoint.lower() == endpoint.lower()]

    def arns(self) -> set[str]:
        every: list[Model | EndpointConfig | Endpoint | Component | PackageGroup | Package] = [
            *self.models.values(),
            *self.configs.values(),
            *self.endpoints.values(),
            *self.components.values(),
            *self.package_groups.values(),
            *(package for group in self.package_groups.values() for package in group.packages.values()),
        ]
        return {resource.arn for resource in every}


_resources: defaultdict[Scope, Resources] = defaultdict(Resources)


def of(scope: Scope) -> Resources:
    """The resources of `scope`."""
    return _resources[scope]


def everywhere() -> list[Served]:
    """Everything of every account and region that has processes."""
    every: list[Served] = []
    for resources in _resources.values():
        every += [*resources.components.values(), *resources.endpoints.values()]
    return every


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _find(found: dict[str, Found], name: str, kind: str, arn: str) -> Found:
    if name.lower() not in found:
        raise validation_error(f'Could not find {kind} "{arn}".')
    return found[name.lower()]
