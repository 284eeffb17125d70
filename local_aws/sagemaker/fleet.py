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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_aws import roles
from local_aws.sagemaker import container, model_data, resources
from local_aws.sagemaker.execution_role import ExecutionRole, RightMissing
from local_aws.sagemaker.resources import EndpointConfig, Model, Scope
from local_aws.state import Home
from local_aws.wire import Json, ServiceError

MAX_INSTANCES_VARIABLE = "LOCAL_AWS_MAX_INSTANCES"
DEFAULT_STARTUP_TIMEOUT = 480.0  # seconds, SageMaker's 8 minutes
DRAIN_TIMEOUT = 60.0  # seconds, the longest an invocation may take
METRIC_INTERVAL = 60.0  # seconds between measurements of an instance
RESTART_PAUSE = (0.5, 10.0)  # seconds between restarts of an instance that keeps dying: first, longest


class FleetError(Exception):
    """The fleet could not be brought up; the message is what DescribeEndpoint says."""


@dataclass
class Plan:
    """What one production variant needs to run, resolved before anything is started."""

    variant: str
    serve: Path
    role: ExecutionRole | None
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
    """The instances of every variant of `config`, for the endpoint called `endpoint`."""

    scope: Scope
    endpoint: str
    config: EndpointConfig
    folder: Path
    plans: dict[str, Plan] = field(default_factory=dict)
    slots: dict[str, list[Slot]] = field(default_factory=dict)
    images: dict[str, list[Json]] = field(default_factory=dict)

    async def start(self, counts: Mapping[str, int]) -> None:
        """Bring up `counts[variant]` instances of each variant; returns when all are healthy.

        Raises FleetError, with nothing left running, if model data, role, image or health check fail.
        """
        try:
            for variant in self.config.variants:
                name = variant["VariantName"]
                self.plans[name] = await self._plan(variant, counts[name])
                await self._start_variant(self.plans[name])
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

    async def _plan(self, variant: Json, count: int) -> Plan:
        name = variant["VariantName"]
        try:
            model = resources.of(self.scope).model(self.scope, variant["ModelName"])
        except ServiceError as error:
            raise FleetError(error.message) from error
        if len(model.containers) != 1:
            raise FleetError(
                f"The embedded AWS serves models of one container; {model.name} is made of more."
            )
        definition = model.containers[0]
        serve = container.entry_point(definition["Image"])
        role, vpc = self._role(model), model.request.get("VpcConfig")
        credentials = role.credentials(vpc) if role else None
        if role:
            role.check_image(definition["Image"])
            role.check_network(vpc)
        folder = self.folder / name / "model"
        await asyncio.to_thread(model_data.fetch, self.scope, definition, credentials, folder)
        self.images[name] = [
            {
                "SpecifiedImage": definition["Image"],
                "ResolvedImage": definition["Image"],
                "ResolutionTime": resources.now(),
            }
        ]
        # No credentials in the container: like network isolation on AWS, it has nothing to reach.
        return Plan(
            variant=name,
            serve=serve,
            role=role,
            environment={"AWS_REGION": self.scope.region, **(definition.get("Environment") or {})},
            model_folder=folder,
            startup_timeout=float(
                variant.get("ContainerStartupHealthCheckTimeoutInSeconds") or DEFAULT_STARTUP_TIMEOUT
            ),
            count=_capped(count),
        )

    def _role(self, model: Model) -> ExecutionRole | None:
        arn = model.request.get("ExecutionRoleArn")
        return ExecutionRole(self.scope, arn) if arn else None

    async def _start_variant(self, plan: Plan) -> None:
        slots = self.slots.setdefault(plan.variant, [])
        while len(slots) < plan.count:
            slot = Slot(await self._start_instance(plan))
            slot.keeper = asyncio.create_task(self._keep(plan, slot))
            slots.append(slot)

    async def _start_instance(self, plan: Plan) -> container.Instance:
        group = f"/aws/sagemaker/Endpoints/{self.endpoint}"
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
                plan.role.metric(name, percent, dimensions)
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


def new(home: Home, scope: Scope, endpoint: str, config: EndpointConfig) -> Fleet:
    """A fleet that is not started yet, with a folder of its own."""
    folder = home.endpoints / f"{re.sub(r'[^A-Za-z0-9-]', '-', endpoint)}-{uuid.uuid4().hex[:8]}"
    return Fleet(scope, endpoint, config, folder)


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
