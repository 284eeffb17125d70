"""The preflight: whether an account can take an environment, asked before a deployment fails half way.

Everything here only reads. Each check is a function from a `Preflight` to what it found, and they run at
once; what AWS does not tell is `unknown`, never a guess.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError

from inferctl.doctor import account, images, network, prices, quotas, singletons
from inferctl.doctor.preflight import FAILED, UNKNOWN, Finding, Preflight
from inferctl.environment import is_refusal

__all__ = ["FAILED", "Finding", "Preflight", "examine"]

Check = Callable[[Preflight], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "region": account.region,
    "zones": account.zones,
    "services": account.services,
    "bootstrap": account.bootstrap,
    "GPU quotas": quotas.instances,
    "Lambda quota": quotas.concurrency,
    "API quota": quotas.api_resources,
    "VPC quota": quotas.vpcs,
    "images": images.images,
    "S3 prefix list": network.s3_prefix_list,
    "DynamoDB prefix list": network.dynamodb_prefix_list,
    "GPUs by zone": network.instances_by_zone,
    "existing VPC": network.existing_vpc,
    "API logging role": account.logging_role,
    "trails": account.trails,
    "GuardDuty": singletons.guard_duty,
    "Inspector": singletons.inspector,
    "AWS Config": singletons.config_recorder,
    "Access Analyzer": singletons.access_analyzer,
    "Trusted Advisor": singletons.trusted_advisor,
    "price": prices.prices,
}
"""Name -> check, in the order of the report; a check that does not concern the environment finds nothing."""

_RIGHTS = "docs/doctor.md lists the rights that the doctor needs"


def examine(preflight: Preflight) -> list[Finding]:
    """What every check found. In another account than the environment's nothing else is worth asking.

    Raises botocore's errors when there are no credentials, or they are not valid.
    """
    identity = account.identity(preflight)
    if identity.state == FAILED:
        return [identity]
    with ThreadPoolExecutor(max_workers=len(CHECKS)) as pool:
        found = pool.map(lambda name: _run(name, preflight), CHECKS)
        return [identity, *(finding for findings in found for finding in findings)]


def _run(name: str, preflight: Preflight) -> list[Finding]:
    try:
        return list(CHECKS[name](preflight))
    except ClientError as error:
        operation, said = error.operation_name, error.response.get("Error", {})
        if is_refusal(error):
            return [Finding(name, UNKNOWN, f"not allowed to call {operation}", _RIGHTS)]
        why = said.get("Message") or f"refused with {said.get('Code')}"
        return [Finding(name, UNKNOWN, why if operation in why else f"{operation}: {why}")]
    except BotoCoreError as error:
        return [Finding(name, UNKNOWN, str(error))]
