"""The processes behind one endpoint configuration: started, kept alive, drained and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_aws import roles
from local_aws.sagemaker import container, model_data, resources
from local_aws.sagemaker.execution_role import COMPONENT_METRICS, METRICS, ExecutionRole, RightMissing
from local_aws.sagemaker.resources import Component, EndpointConfig, Scope
from local_aws.state import Home
from local_aws.wire import Json, ServiceError

MAX_INSTANCES_VARIABLE = "LOCAL_AWS_MAX_INSTANCES"
DEFAULT_STARTUP_TIMEOUT = 480.0  # seconds, SageMaker's 8 minutes
DRAIN_TIMEOUT = 60.0  # seconds, the longest an invocation may take
METRIC_INTERVAL = 60.0  # seconds between measurements of an instance
RESTART_PAUSE = (0.5, 10.0)  # seconds between restarts of an instance that keeps dying: first, longest


class FleetError(Exception):
    """The fleet could not be brought up; the message is what DescribeEndpoint says."""


@dataclass(frozen=True)
class Served:
    """A model that runs on a production variant, by name, and the seconds that it has to become healthy.

    `role` is the ARN in whose name SageMaker acts for it, if any, and `vpc` the network that it joins.
    """

    variant: str
    model: str
    startup_timeout: float
    role: str | None
    vpc: Json | None


@dataclass
class Plan:
    """What one production variant needs to run, resolved before anything is started."""

    variant: str
    serve: Path
    role: ExecutionRole | None
    vpc: Json | None
    environment: dict[str, str]
    model_folder: Path
    startup_timeout: float
    count: int


@dataclass
class Slot:
    """A place for one instance: the instance that is in it now, or None while it is being restarted."""

    instance: container.Instance | None
    keeper: asyncio.Task[None] | None = None


@dataclass
class Fleet:
    """The instances that run for the endpoint called `endpoint`, or for one of its inference components.

    `served` says what runs, asked when the fleet starts; it raises FleetError for a model that is not there.
    """

    scope: Scope
    endpoint: str
    component: str | None
    served: Callable[[], list[Served]]
    folder: Path
    plans: dict[str, Plan] = field(default_factory=dict)
    slots: dict[str, list[Slot]] = field(default_factory=dict)
    images: dict[str, list[Json]] = field(default_factory=dict)

    async def start(self, counts: Mapping[str, int]) -> None:
        """Bring up `counts[variant]` instances of each variant; returns when all are healthy.

        Raises FleetError, with nothing left running, if model data, role, image or health check fail.
        """
        try:
            for served in self.served():
                plan = await self._plan(served, counts[served.variant])
                self.plans[served.variant] = plan
                await self._start_variant(plan)
        except (
            FleetError,
            RightMissing,
            container.ContainerError,
            model_data.ModelDataError,
            roles.NotAssumable,
        ) as error:
            await self.stop()
            raise FleetError(_reason(error)) from error
        except BaseException:
            await self.stop()
            raise

    async def resize(self, variant: str, count: int) -> None:
        """Start or stop instances of `variant` until there are `count`, within this machine's cap."""
        plan, slots = self.plans[variant], self.slots[variant]
        plan.count = _capped(count)
        while len(slots) > plan.count:
            await self._end(slots.pop())
        await self._start_variant(plan)

    def pick(self, variant: str) -> container.Instance | None:
        """The instance of `variant` with the fewest requests, or None while none is alive."""
        alive = [
            slot.instance for slot in self.slots.get(variant, []) if slot.instance and slot.instance.alive
        ]
        if not alive:
            return None
        least = min(instance.requests for instance in alive)
        return random.choice([one for one in alive if one.requests == least])  # noqa: S311 - load balancing

    async def drain(self) -> None:
        """Wait until no request is being answered."""
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while time.monotonic() < deadline and any(
            slot.instance and slot.instance.requests for slots in self.slots.values() for slot in slots
        ):
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End every instance and remove the model data."""
        await asyncio.gather(*(self._end(slot) for slots in self.slots.values() for slot in slots))
        self.slots.clear()
        await asyncio.to_thread(_remove, self.folder)

    async def _plan(self, served: Served, count: int) -> Plan:
        model = resources.of(self.scope).model(self.scope, served.model)
        if len(model.containers) != 1:
            raise FleetError(
                f"The embedded AWS serves models of one container; {model.name} is made of more."
            )
        definition = model.containers[0]
        serve = container.entry_point(definition["Image"])
        role = ExecutionRole(self.scope, served.role) if served.role else None
        credentials = role.credentials(served.vpc) if role else None
        if role:
            role.check_image(definition["Image"])
            role.check_network(served.vpc)
        folder = self.folder / served.variant / "model"
        await asyncio.to_thread(model_data.fetch, self.scope, definition, credentials, folder)
        self.images[served.variant] = [
            {
                "SpecifiedImage": definition["Image"],
                "ResolvedImage": definition["Image"],
                "ResolutionTime": resources.now(),
            }
        ]
        # No credentials in the container: like network isolation on AWS, it has nothing to reach.
        return Plan(
            variant=served.variant,
            serve=serve,
            role=role,
            vpc=served.vpc,
            environment={"AWS_REGION": self.scope.region, **(definition.get("Environment") or {})},
            model_folder=folder,
            startup_timeout=served.startup_timeout,
            count=_capped(count),
        )

    async def _start_variant(self, plan: Plan) -> None:
        slots = self.slots.setdefault(plan.variant, [])
        while len(slots) < plan.count:
            slot = Slot(await self._start_instance(plan))
            slot.keeper = asyncio.create_task(self._keep(plan, slot))
            slots.append(slot)

    async def _start_instance(self, plan: Plan) -> container.Instance:
        group = log_group(self.endpoint, self.component)
        stream = f"{plan.variant}/i-{uuid.uuid4().hex[:17]}"

        def write(line: str) -> None:
            if plan.role:
                plan.role.log(group, stream, line)

        try:
            instance = await container.start(
                plan.serve,
                model=plan.model_folder,
                environment=plan.environment,
                timeout=plan.startup_timeout,
                on_line=write,
            )
        except container.ContainerError as error:
            raise FleetError(
                f"The primary container for production variant {plan.variant} did not pass the ping health "
                f"check. Please check CloudWatch logs for this endpoint. ({error})"
            ) from error
        instance.measuring = asyncio.create_task(self._measure(plan, instance))
        return instance

    async def _measure(self, plan: Plan, instance: container.Instance) -> None:
        """Publish the instance's own metrics, as its role, while it lives."""
        dimensions = {"EndpointName": self.endpoint, "VariantName": plan.variant}
        while plan.role is not None and instance.alive:
            for name, percent in (await container.utilization(instance)).items():
                plan.role.metric(METRICS, name, percent, dimensions)
                if self.component:
                    copy = {"InferenceComponentName": self.component}
                    plan.role.metric(COMPONENT_METRICS, f"{name}Normalized", percent, copy)
            await asyncio.sleep(METRIC_INTERVAL)

    async def _keep(self, plan: Plan, slot: Slot) -> None:
        """Replace the instance of `slot` whenever it dies."""
        pause, longest = RESTART_PAUSE
        while True:
            if slot.instance is not None:
                await slot.instance.process.wait()
                await container.stop(slot.instance)
                slot.instance = None
            with contextlib.suppress(FleetError):
                slot.instance = await self._start_instance(plan)
                pause = RESTART_PAUSE[0]
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _end(self, slot: Slot) -> None:
        if slot.keeper is not None:
            slot.keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await slot.keeper
        if slot.instance is not None:
            await container.stop(slot.instance)


def of_endpoint(home: Home, scope: Scope, endpoint: str, config: EndpointConfig) -> Fleet:
    """A fleet for the variants of `config` that have models, not started yet."""

    def served() -> list[Served]:
        return [
            Served(
                variant["VariantName"],
                variant["ModelName"],
                _startup_timeout(variant),
                (model := _model(scope, variant["ModelName"])).get("ExecutionRoleArn"),
                model.get("VpcConfig"),
            )
            for variant in config.variants
            if variant.get("ModelName")
        ]

    return Fleet(scope, endpoint, None, served, _folder(home, endpoint))


def of_component(home: Home, component: Component, specification: Json) -> Fleet:
    """A fleet for the copies of an inference component, not started yet.

    It acts in the name of the endpoint configuration's role, and joins the network of that.
    """

    def served() -> list[Served]:
        try:
            config = (
                resources.of(component.scope).endpoint(component.scope, component.endpoint).config.request
            )
        except ServiceError as error:
            raise FleetError(error.message) from error
        model = specification["ModelName"]
        _model(component.scope, model)
        timeout = _startup_timeout(specification.get("StartupParameters") or {})
        role, vpc = config["ExecutionRoleArn"], config.get("VpcConfig")
        return [Served(component.variant, model, timeout, role, vpc)]

    return Fleet(component.scope, component.endpoint, component.name, served, _folder(home, component.name))


def log_group(endpoint: str, component: str | None) -> str:
    """Where the containers of an endpoint, or of one of its inference components, write."""
    if component:
        return f"/aws/sagemaker/InferenceComponents/{component}"
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def _model(scope: Scope, name: str) -> Json:
    """What CreateModel was given."""
    try:
        return resources.of(scope).model(scope, name).request
    except ServiceError as error:
        raise FleetError(error.message) from error


def _startup_timeout(settings: Json) -> float:
    return float(settings.get("ContainerStartupHealthCheckTimeoutInSeconds") or DEFAULT_STARTUP_TIMEOUT)


def _folder(home: Home, name: str) -> Path:
    return home.endpoints / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}-{uuid.uuid4().hex[:8]}"


def _capped(count: int) -> int:
    """How many processes stand for `count` instances: a laptop has fewer cores than a fleet."""
    return max(0, min(count, int(os.environ.get(MAX_INSTANCES_VARIABLE, "1"))))


def _reason(error: Exception) -> str:
    text = (
        f"Could not assume the execution role: {error}."
        if isinstance(error, roles.NotAssumable)
        else str(error)
    )
    return text[:1024]  # FailureReason's bound


def _remove(folder: Path) -> None:
    if not folder.is_dir():
        return
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)
