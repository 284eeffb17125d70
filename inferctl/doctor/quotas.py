"""Whether the account's quotas are as large as the catalog asks for, by the code with which to raise them."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from catalog import capacity
from catalog.capacity import UNRESERVED
from catalog.quotas import API_RESOURCES, LAMBDA_CONCURRENCY
from inferctl.doctor.preflight import FAILED, OK, WARNING, Finding, Preflight

VPCS = "L-F678F1CE"  # VPC: VPCs per region

RESOURCES_OF_THE_API, RESOURCES_PER_MODEL = 6, 3
"""Paths of the API, counted as API Gateway counts them (stacks/constructs/routes.py)."""


def raise_it(preflight: Preflight, service: str, code: str, value: float) -> str:
    """The command that asks for a higher quota."""
    return (
        f"aws service-quotas request-service-quota-increase --region {preflight.environment.region} "
        f"--service-code {service} --quota-code {code} --desired-value {value:g}"
    )


def instances(preflight: Preflight) -> Iterator[Finding]:
    """Each GPU type's quota for endpoints against the catalog.

    Autoscaling may ask for the sum of `max`. A blue/green update runs the new fleet beside the old one, so
    that updating every model at its busiest takes twice that, and at its quietest twice the sum of `min`.
    """
    wanted = capacity.instances(preflight.models)
    if not wanted:
        return
    names = {f"{instance} for endpoint usage": instance for instance in wanted}
    found = _by_name(preflight, "sagemaker", set(names))
    for name, instance in sorted(names.items()):
        least, most = wanted[instance]
        if name not in found:
            where = preflight.environment.region
            yield Finding(
                f"quota: {instance}",
                FAILED,
                f"{where} has no quota {name!r}: SageMaker does not offer the type there",
                "choose another gpu.instance_type or region",
            )
            continue
        quota, code = found[name]["Value"], found[name]["QuotaCode"]
        needs = f"{name} is {quota:g}; the catalog starts {least}, scales to {most}"
        remedy = raise_it(preflight, "sagemaker", code, 2 * most)
        if quota < max(most, 2 * least):
            yield Finding(
                f"quota: {instance}", FAILED, f"{needs}, and an update takes twice {least}", remedy, code
            )
        elif quota < (promised := preflight.environment.quotas.instances.get(instance, 0)):
            found_ = f"{needs}, and quotas.instances says {promised}"
            remedy = raise_it(preflight, "sagemaker", code, max(promised, 2 * most))
            yield Finding(f"quota: {instance}", WARNING, found_, remedy, code)
        elif quota < 2 * most:
            found_ = f"{needs}, and an update at that size takes twice as many"
            yield Finding(f"quota: {instance}", WARNING, found_, remedy, code)
        else:
            yield Finding(f"quota: {instance}", OK, needs, quota=code)


def concurrency(preflight: Preflight) -> Iterator[Finding]:
    limits = preflight.client("lambda").get_account_settings()["AccountLimit"]
    quota = limits["ConcurrentExecutions"]
    reserved = capacity.reserved_concurrency(preflight.models)
    needed = reserved + UNRESERVED
    promised = preflight.environment.quotas.lambda_concurrency
    found = f"{quota} concurrent executions in the account, {reserved} reserved by the catalog"
    remedy = raise_it(preflight, "lambda", LAMBDA_CONCURRENCY, max(1000, needed))
    if reserved and quota < needed:
        found += f", and {UNRESERVED} must stay unreserved"
        yield Finding("quota: Lambda", FAILED, found, remedy, LAMBDA_CONCURRENCY)
    elif quota < needed:
        # What new accounts start with.
        yield Finding("quota: Lambda", WARNING, f"{found}: few for an API", remedy, LAMBDA_CONCURRENCY)
    elif quota < promised:
        found += f", and quotas.lambda_concurrency says {promised}"
        yield Finding("quota: Lambda", WARNING, found, remedy, LAMBDA_CONCURRENCY)
    else:
        yield Finding("quota: Lambda", OK, found, quota=LAMBDA_CONCURRENCY)


def api_resources(preflight: Preflight) -> Iterator[Finding]:
    needed = RESOURCES_OF_THE_API + RESOURCES_PER_MODEL * len(preflight.models)
    quota = _by_code(preflight, "apigateway", API_RESOURCES)
    found = f"the API has {needed} resources of {quota:g}"
    promised = preflight.environment.quotas.api_resources
    if needed > quota:
        remedy = raise_it(preflight, "apigateway", API_RESOURCES, needed)
        yield Finding("quota: API", FAILED, found, remedy, API_RESOURCES)
    elif promised > quota:
        remedy = raise_it(preflight, "apigateway", API_RESOURCES, promised)
        found += f", and quotas.api_resources says {promised}"
        yield Finding("quota: API", WARNING, found, remedy, API_RESOURCES)
    else:
        yield Finding("quota: API", OK, found, quota=API_RESOURCES)


def vpcs(preflight: Preflight) -> Iterator[Finding]:
    """Room for one more VPC; elastic addresses and NAT gateways the platform has none of."""
    if preflight.environment.network.vpc is not None:
        return
    there = preflight.client("ec2").describe_vpcs()["Vpcs"]
    ours = {"Key": "Name", "Value": preflight.names.prefix}
    if any(ours in vpc.get("Tags", []) for vpc in there):
        yield Finding("quota: VPCs", OK, "the environment has its VPC", quota=VPCS)
        return
    quota = _by_code(preflight, "vpc", VPCS)
    found = f"{len(there)} of {quota:g} VPCs of the region are in use"
    if len(there) >= quota:
        remedy = f"{raise_it(preflight, 'vpc', VPCS, quota + 1)}; or network.vpc in {preflight.config}"
        yield Finding("quota: VPCs", FAILED, found, remedy, VPCS)
    else:
        yield Finding("quota: VPCs", OK, found, quota=VPCS)


def _by_code(preflight: Preflight, service: str, code: str) -> float:
    """The quota's applied value, else the default: what was never raised may have no applied one."""
    client = preflight.client("service-quotas")
    try:
        answer = client.get_service_quota(ServiceCode=service, QuotaCode=code)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchResourceException":
            raise
        answer = client.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)
    return float(answer["Quota"]["Value"])


def _by_name(preflight: Preflight, service: str, names: set[str]) -> dict[str, dict[str, Any]]:
    """Quotas by name, the applied values before the defaults; a name that is none is left out."""
    found: dict[str, dict[str, Any]] = {}
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        pages = preflight.client("service-quotas").get_paginator(operation)
        for page in pages.paginate(ServiceCode=service, PaginationConfig={"PageSize": 100}):
            for quota in page["Quotas"]:
                if quota["QuotaName"] in names:
                    found.setdefault(quota["QuotaName"], quota)
            if names <= found.keys():
                return found
    return found
