"""Moving an endpoint to a configuration: blue/green, with traffic shifting and alarms that roll it back.

Follows docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html. The new fleet is healthy before it
gets traffic; the old one serves until then, is drained, and only then stopped. Waits are those of the
deployment configuration, capped at LOCAL_AWS_MAX_WAIT seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator

from ministack.core import responses
from ministack.services import cloudwatch

from local_aws.sagemaker import fleet as fleets
from local_aws.sagemaker.fleet import Fleet, FleetError
from local_aws.sagemaker.resources import Endpoint, EndpointConfig, Scope, Served, Variant
from local_aws.state import Home
from local_aws.wire import Json

MAX_WAIT_VARIABLE = "LOCAL_AWS_MAX_WAIT"
DEFAULT_MAX_WAIT = 10.0  # seconds
ALARM_INTERVAL = 0.5  # seconds between looks at the rollback alarms

logger = logging.getLogger("sagemaker")


class RolledBack(Exception):
    """An alarm asked for the old fleet; the message names it."""


def run(home: Home, endpoint: Endpoint, config: EndpointConfig, variants: dict[str, Variant]) -> None:
    """Deploy `config` to `endpoint` in the background; the endpoint's status tells how it goes."""
    endpoint.deploying = asyncio.ensure_future(_deploy(home, endpoint, config, variants))


async def end(served: Served) -> None:
    """Abandon the change under way and stop every process of an endpoint or of an inference component."""
    if served.deploying is not None:
        served.deploying.cancel()
        await asyncio.gather(served.deploying, return_exceptions=True)
    await asyncio.gather(*(fleet.stop() for fleet in served.fleets))
    served.fleets.clear()
    served.fleet = served.incoming = None


async def _deploy(
    home: Home, endpoint: Endpoint, config: EndpointConfig, variants: dict[str, Variant]
) -> None:
    old, new = endpoint.fleet, fleets.of_endpoint(home, endpoint.scope, endpoint.name, config)
    endpoint.fleets.append(new)
    try:
        await new.start({name: variant.desired_instances for name, variant in variants.items()})
        if old is not None:
            await _shift(endpoint, new)
    except FleetError as error:
        await retire(endpoint, new)
        _give_up(endpoint, str(error))
    except RolledBack as error:
        endpoint.become("RollingBack")
        await retire(endpoint, new)
        _give_up(endpoint, str(error))
    except Exception:
        logger.exception("The deployment of endpoint %s failed", endpoint.name)
        await retire(endpoint, new)
        _give_up(endpoint, "Request to service failed: see the embedded AWS's log.")
    else:
        for name, variant in variants.items():
            variant.weight, variant.instances = variant.desired_weight, variant.desired_instances
            variant.images = new.images.get(name, [])
        endpoint.config, endpoint.variants, endpoint.fleet = config, variants, new
        endpoint.incoming, endpoint.incoming_share = None, 0.0
        if old is not None:
            await asyncio.sleep(_termination_wait(endpoint.deployment))
            await retire(endpoint, old)
        endpoint.become("InService")


def _give_up(endpoint: Endpoint, reason: str) -> None:
    """Without an old fleet the endpoint has failed; with one it goes on and says what went wrong."""
    endpoint.become("InService" if endpoint.fleet else "Failed", reason)


async def _shift(endpoint: Endpoint, new: Fleet) -> None:
    """Move traffic from the serving fleet to `new` in the steps of the deployment configuration, watching the
    alarms. Raises RolledBack.
    """
    policy = (endpoint.deployment or {}).get("BlueGreenUpdatePolicy") or {}
    routing = policy.get("TrafficRoutingConfiguration") or {}
    wait = float(routing.get("WaitIntervalInSeconds", 0))
    total = sum(variant.desired_instances for variant in endpoint.variants.values()) or 1
    for share in _shares(routing, total):
        endpoint.incoming, endpoint.incoming_share = new, share
        await bake(endpoint.scope, endpoint.deployment, wait)


async def bake(scope: Scope, deployment: Json | None, seconds: float) -> None:
    """Wait, capped at LOCAL_AWS_MAX_WAIT, and watch the alarms of a deployment configuration.

    Raises RolledBack as soon as one of them is in ALARM.
    """
    deadline = time.monotonic() + min(seconds, _max_wait())
    while True:
        _check_alarms(scope, deployment)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        await asyncio.sleep(min(ALARM_INTERVAL, remaining))


def _shares(routing: Json, instances: int) -> Iterator[float]:
    """The new fleet's share of the traffic after each step."""
    kind = routing.get("Type", "ALL_AT_ONCE")
    if kind == "CANARY":
        yield _share(routing["CanarySize"], instances)
    if kind == "LINEAR":
        step = _share(routing["LinearStepSize"], instances)
        reached = step
        while reached < 1:
            yield reached
            reached += step
    yield 1.0


def _share(size: Json, instances: int) -> float:
    whole = 100 if size["Type"] == "CAPACITY_PERCENT" else instances
    return min(1.0, float(size["Value"]) / whole)


def _check_alarms(scope: Scope, deployment: Json | None) -> None:
    names = [alarm["AlarmName"] for alarm in _rollback(deployment).get("Alarms") or []]
    with responses.request_scope(scope.account, scope.region):
        for name in names:
            alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
            if alarm is not None and alarm["StateValue"] == "ALARM":
                raise RolledBack(
                    f"The deployment was rolled back: CloudWatch alarm {name} was in ALARM during it."
                )


def _rollback(deployment: Json | None) -> Json:
    return (deployment or {}).get("AutoRollbackConfiguration") or {}


def _termination_wait(deployment: Json | None) -> float:
    policy = (deployment or {}).get("BlueGreenUpdatePolicy") or {}
    return min(float(policy.get("TerminationWaitInSeconds", 0)), _max_wait())


def _max_wait() -> float:
    return float(os.environ.get(MAX_WAIT_VARIABLE, DEFAULT_MAX_WAIT))


async def retire(served: Served, fleet: Fleet) -> None:
    """Take `fleet` out of the traffic, let it finish what it is answering, and stop it."""
    if served.incoming is fleet:
        served.incoming, served.incoming_share = None, 0.0
    await fleet.drain()
    await fleet.stop()
    served.fleets.remove(fleet)
