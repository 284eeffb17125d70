"""Inference components: models whose copies run on an endpoint's instances, from none to many.

docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-deploy-models.html and
endpoint-auto-scaling-zero-instances.html. A copy is a process, as an instance of a production variant is; how
many run of those that are wanted has the same cap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from local_aws.sagemaker import deployment, fleet, resources
from local_aws.sagemaker.control import current, page, refuse_existing, tag
from local_aws.sagemaker.fleet import Fleet, FleetError
from local_aws.sagemaker.resources import Component
from local_aws.state import Home
from local_aws.wire import Json, Operation, validation_error


def in_flight(component: Component) -> int:
    """The most requests that one of its copies is answering now."""
    slots = [slot for one in component.fleets for slots in one.slots.values() for slot in slots]
    return max((slot.instance.requests for slot in slots if slot.instance), default=0)


class Components:
    """The operations, for the account and region of the request that is being answered."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateInferenceComponent": self.create,
            "DescribeInferenceComponent": self.describe,
            "ListInferenceComponents": self.list_,
            "UpdateInferenceComponent": self.update,
            "UpdateInferenceComponentRuntimeConfig": self.update_runtime_config,
            "DeleteInferenceComponent": self.delete,
        }

    def create(self, request: Json) -> Json:
        scope, found = current()
        name = request["InferenceComponentName"]
        arn = scope.arn("inference-component", name)
        refuse_existing(found.components, name, "inference component", arn)
        endpoint = found.endpoint(scope, request["EndpointName"])
        if not endpoint.config.hosts_components:
            raise validation_error(
                "Invalid request provided: Inference Components are not supported in this Endpoint. Please "
                "make sure this endpoint can deploy inference components."
            )
        variant = request.get("VariantName") or endpoint.config.variants[0]["VariantName"]
        if variant not in endpoint.variants:
            raise validation_error(f"Variant {variant} not found for endpoint {endpoint.name}.")
        if endpoint.status != "InService":
            raise validation_error(f'Endpoint "{endpoint.arn}" is not InService.')
        specification = _checked(request)
        found.model(scope, specification["ModelName"])
        made = resources.now()
        component = Component(scope, name, arn, made, made, endpoint.name, variant, specification)
        found.components[name.lower()] = component
        tag(found, arn, request.get("Tags"))
        self._change(component, "Creating", _copies(request, default=1))
        return {"InferenceComponentArn": arn}

    def describe(self, request: Json) -> Json:
        scope, found = current()
        component = found.component(scope, request["InferenceComponentName"])
        described: Json = {
            "InferenceComponentName": component.name,
            "InferenceComponentArn": component.arn,
            "EndpointName": component.endpoint,
            "EndpointArn": scope.arn("endpoint", component.endpoint),
            "VariantName": component.variant,
            "Specification": component.specification,
            "RuntimeConfig": {"DesiredCopyCount": component.desired, "CurrentCopyCount": component.copies},
            "CreationTime": component.created,
            "LastModifiedTime": component.modified,
            "InferenceComponentStatus": component.status,
        }
        if component.failure:
            described["FailureReason"] = component.failure
        if component.deployment:
            described["LastDeploymentConfig"] = component.deployment
        return described

    def list_(self, request: Json) -> Json:
        _, found = current()

        def wanted(one: Component) -> Iterator[bool]:
            yield request.get("EndpointNameEquals") in (None, one.endpoint)
            yield request.get("VariantNameEquals") in (None, one.variant)
            yield request.get("StatusEquals") in (None, one.status)

        def summary(one: Component) -> Json:
            return {
                "InferenceComponentName": one.name,
                "InferenceComponentArn": one.arn,
                "EndpointName": one.endpoint,
                "EndpointArn": one.scope.arn("endpoint", one.endpoint),
                "VariantName": one.variant,
                "InferenceComponentStatus": one.status,
                "CreationTime": one.created,
                "LastModifiedTime": one.modified,
            }

        chosen = [one for one in found.components.values() if all(wanted(one))]
        return page(request, "InferenceComponents", chosen, summary)

    def update(self, request: Json) -> Json:
        scope, found = current()
        component = found.component(scope, request["InferenceComponentName"])
        _refuse_in_progress(component)
        specification = component.specification
        if request.get("Specification") or request.get("Specifications"):
            specification = _checked(request)
            found.model(scope, specification["ModelName"])
        component.deployment = request.get("DeploymentConfig")
        self._change(
            component, "Updating", _copies(request, default=component.desired), specification=specification
        )
        return {"InferenceComponentArn": component.arn}

    def update_runtime_config(self, request: Json) -> Json:
        scope, found = current()
        component = found.component(scope, request["InferenceComponentName"])
        _refuse_in_progress(component)
        self._change(component, "Updating", int(request["DesiredRuntimeConfig"]["CopyCount"]))
        return {"InferenceComponentArn": component.arn}

    def delete(self, request: Json) -> Json:
        scope, found = current()
        component = found.component(scope, request["InferenceComponentName"])
        if component.status in ("Creating", "Updating"):
            raise validation_error(
                f'Cannot delete inference component "{component.arn}" while it is in state '
                f"{component.status}."
            )
        if component.status != "Deleting":
            component.become("Deleting")
            component.deploying = asyncio.ensure_future(_delete(found, component))
        return {}

    def _change(
        self, component: Component, status: str, copies: int, *, specification: Json | None = None
    ) -> None:
        """Bring the component to these copies of this specification, in the background."""
        component.desired = copies
        component.become(status)
        wanted = specification or component.specification
        component.deploying = asyncio.ensure_future(self._bring_about(component, wanted))

    async def _bring_about(self, component: Component, specification: Json) -> None:
        known, before = component.specification, component.copies
        try:
            if component.fleet is not None and component.desired and specification != known:
                await self._roll(component, specification)
            else:
                component.specification = specification
                await self._scale(component)
        except FleetError as error:
            component.desired, component.specification = component.copies, known
            component.become("Failed" if component.status == "Creating" else "InService", str(error))
        except deployment.RolledBack as error:
            component.desired = component.copies = before
            component.become("InService", str(error))
        else:
            component.copies = component.desired
            component.become("InService")

    async def _scale(self, component: Component) -> None:
        if component.desired == 0:
            old, component.fleet, component.copies = component.fleet, None, 0
            if old is not None:
                await deployment.retire(component, old)
        elif component.fleet is None:
            new = self._new(component, component.specification)
            try:
                await new.start({component.variant: component.desired})
            except FleetError:
                component.fleets.remove(new)
                raise
            component.fleet = new
        else:
            await component.fleet.resize(component.variant, component.desired)

    async def _roll(self, component: Component, specification: Json) -> None:
        """Replace the copies batch by batch, each baked under the alarms.

        Raises RolledBack or FleetError, with the old copies back at work.
        """
        old, variant, copies = component.fleet, component.variant, component.desired
        assert old is not None
        new = self._new(component, specification)
        policy = (component.deployment or {}).get("RollingUpdatePolicy") or {}
        batch = _batch(policy.get("MaximumBatchSize"), copies)
        wait = float(policy.get("WaitIntervalInSeconds", 0))
        try:
            await new.start({variant: min(batch, copies)})
            for moved in (*range(batch, copies, batch), copies):
                await new.resize(variant, moved)
                component.incoming, component.incoming_share = new, moved / copies
                await deployment.bake(component.scope, component.deployment, wait)
                if moved < copies:
                    await old.resize(variant, copies - moved)
        except (FleetError, deployment.RolledBack):
            await old.resize(variant, copies)
            await deployment.retire(component, new)
            raise
        component.specification, component.fleet = specification, new
        component.incoming, component.incoming_share = None, 0.0
        await deployment.retire(component, old)

    def _new(self, component: Component, specification: Json) -> Fleet:
        new = fleet.of_component(self._home, component, specification)
        component.fleets.append(new)
        return new


def _checked(request: Json) -> Json:
    """The specification of a request, of the one form that is served."""
    if request.get("Specifications"):
        raise validation_error("The embedded AWS serves inference components with one Specification.")
    specification: Json = request.get("Specification") or {}
    for option in ("Container", "BaseInferenceComponentName", "DataCacheConfig", "SchedulingConfig"):
        if specification.get(option):
            raise validation_error(f"The embedded AWS does not serve inference components with {option}.")
    for member in ("ModelName", "ComputeResourceRequirements"):
        if not specification.get(member):
            raise validation_error(f"Specification.{member} must be given.")
    return specification


def _copies(request: Json, default: int) -> int:
    return int((request.get("RuntimeConfig") or {}).get("CopyCount", default))


def _batch(size: Json | None, copies: int) -> int:
    if size is None:
        return max(copies, 1)
    count = size["Value"] if size["Type"] == "COPY_COUNT" else copies * size["Value"] // 100
    return max(1, int(count))


def _refuse_in_progress(component: Component) -> None:
    if component.status not in ("InService", "Failed"):
        raise validation_error(f'Cannot update in-progress inference component "{component.arn}".')


async def _delete(found: resources.Resources, component: Component) -> None:
    await asyncio.gather(*(one.stop() for one in component.fleets))
    del found.components[component.name.lower()]
    found.tags.pop(component.arn, None)
