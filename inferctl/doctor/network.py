"""What the network rests on: prefix lists, GPUs in the zones, a VPC that is already there."""

from collections.abc import Iterator
from typing import Any

from catalog.environment import ExistingVpc
from inferctl.doctor.preflight import FAILED, OK, UNKNOWN, WARNING, Finding, Preflight


def s3_prefix_list(preflight: Preflight) -> Iterator[Finding]:
    ours = preflight.environment.s3_prefix_list
    return _prefix_list(preflight, "s3", "S3", ours, "models could not read their files")


def dynamodb_prefix_list(preflight: Preflight) -> Iterator[Finding]:
    if preflight.environment.network.private_control_plane:
        ours = preflight.environment.dynamodb_prefix_list
        yield from _prefix_list(
            preflight, "dynamodb", "DynamoDB", ours, "releases could not keep their history"
        )


def _prefix_list(
    preflight: Preflight, service: str, label: str, ours: str, otherwise: str
) -> Iterator[Finding]:
    check, name = f"{label} prefix list", f"com.amazonaws.{preflight.environment.region}.{service}"
    answer = preflight.client("ec2").describe_managed_prefix_lists(
        Filters=[{"Name": "prefix-list-name", "Values": [name]}]
    )
    actual = [found["PrefixListId"] for found in answer["PrefixLists"]]
    if not actual:
        yield Finding(check, UNKNOWN, f"there is no {name}")
    elif ours in actual:
        yield Finding(check, OK, f"{name} is {ours}")
    else:
        yield Finding(
            check,
            FAILED,
            f"{name} is {actual[0]}, the platform takes it for {ours}: {otherwise}",
            f"network.{service}_prefix_list: {actual[0]} in {preflight.config}",
        )


def instances_by_zone(preflight: Preflight) -> Iterator[Finding]:
    """In which of the environment's zones EC2 has the GPU types. SageMaker's own zones are not public."""
    zones = preflight.environment.availability_zones
    types = sorted({model.gpu.instance_type.removeprefix("ml.") for model in preflight.gpu_models})
    if not types:
        return
    pages = (
        preflight.client("ec2")
        .get_paginator("describe_instance_type_offerings")
        .paginate(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}])
    )
    offered = {
        (offering["InstanceType"], offering["Location"])
        for page in pages
        for offering in page["InstanceTypeOfferings"]
    }
    for kind in types:
        having = [zone for zone in zones if (kind, zone) in offered]
        found = f"EC2 has {kind} in {len(having)} of the {len(zones)} zones"
        if len(having) >= 2:
            yield Finding(f"zones: ml.{kind}", OK, found)
        elif not offered:
            yield Finding(f"zones: ml.{kind}", UNKNOWN, f"EC2 does not list {kind}")
        else:
            elsewhere = sorted(zone for type_, zone in offered if type_ == kind)
            remedy = f"it has it in {', '.join(elsewhere) or 'none'}: list two of them in availability_zones"
            yield Finding(f"zones: ml.{kind}", WARNING, f"{found}: one zone's loss stops a model", remedy)


def existing_vpc(preflight: Preflight) -> Iterator[Finding]:
    config = preflight.environment.network.vpc
    if config is None:
        return
    problems = list(_problems(preflight, config))
    for found, remedy in problems:
        yield Finding("existing VPC", FAILED, found, remedy)
    if not problems:
        yield Finding("existing VPC", OK, f"{config.id} has what docs/network.md asks for")


def _problems(preflight: Preflight, config: ExistingVpc) -> Iterator[tuple[str, str]]:
    ec2 = preflight.client("ec2")
    in_it = [{"Name": "vpc-id", "Values": [config.id]}]
    subnets = {subnet["SubnetId"]: subnet for subnet in ec2.describe_subnets(Filters=in_it)["Subnets"]}
    for zone, identifier in config.subnets.items():
        subnet = subnets.get(identifier)
        if subnet is None:
            yield f"{config.id} has no subnet {identifier}", f"correct network.vpc in {preflight.config}"
        elif subnet["AvailabilityZone"] != zone:
            yield (
                f"{identifier} is in {subnet['AvailabilityZone']}, not in {zone}",
                f"correct network.vpc.subnets in {preflight.config}",
            )
    if not subnets:
        return
    tables = ec2.describe_route_tables(Filters=in_it)["RouteTables"]
    for identifier in config.subnets.values():
        table = _route_table(tables, identifier)
        for route in table.get("Routes", []):
            if route.get("DestinationCidrBlock") == "0.0.0.0/0" or "DestinationIpv6CidrBlock" in route:
                way = route.get("NatGatewayId") or route.get("TransitGatewayId") or route.get("GatewayId")
                if way != "local":
                    yield (
                        f"{identifier} has a route out of the VPC, by {way}",
                        f"give it a route table without one: {table['RouteTableId']} has it",
                    )
    if not config.create_endpoints:
        endpoints = ec2.describe_vpc_endpoints(Filters=in_it)["VpcEndpoints"]
        s3 = [one for one in endpoints if one["ServiceName"].endswith(".s3")]
        covered = {table for one in s3 for table in one.get("RouteTableIds", [])}
        for identifier in config.subnets.values():
            table = _route_table(tables, identifier)
            if table.get("RouteTableId") not in covered:
                yield (
                    f"{identifier} has no route to a gateway endpoint of S3",
                    "add its route table to the VPC's endpoint, or set create_endpoints: true",
                )


def _route_table(tables: list[dict[str, Any]], subnet: str) -> dict[str, Any]:
    """The subnet's own route table, else the VPC's main one."""
    main: dict[str, Any] = {}
    for table in tables:
        for association in table.get("Associations", []):
            if association.get("SubnetId") == subnet:
                return table
            if association.get("Main"):
                main = table
    return main
