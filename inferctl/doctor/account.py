"""Who calls, and whether account and region are ready: services, bootstrap, and what there is only one of."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from inferctl.doctor.preflight import FAILED, OK, WARNING, Finding, Preflight

BOOTSTRAP_PARAMETER = "/cdk-bootstrap/hnb659fds/version"
BOOTSTRAP_VERSION = 6
"""What the assembly's stacks ask for (`requiresBootstrapStackVersion`)."""

TRAILS_PER_REGION = 5
"""CloudTrail's quota, which cannot be raised."""

# One harmless call of each service that not every region has.
_PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "apigateway": ("get_rest_apis", {"limit": 1}),
    "cognito-idp": ("list_user_pools", {"MaxResults": 1}),
    "lambda": ("list_functions", {"MaxItems": 1}),
    "sagemaker": ("list_endpoints", {"MaxResults": 1}),
    "wafv2": ("list_web_acls", {"Scope": "REGIONAL", "Limit": 1}),
}


def identity(preflight: Preflight) -> Finding:
    """Whose credentials these are, and whether the environment is in their account."""
    caller = preflight.client("sts").get_caller_identity()
    expected = preflight.environment.account
    if expected not in (None, caller["Account"]):
        return Finding(
            "credentials",
            FAILED,
            f"{caller['Arn']} is of account {caller['Account']}, {preflight.config} says {expected}",
            "set AWS_PROFILE to a profile of that account",
        )
    return Finding("credentials", OK, f"{caller['Arn']} in account {caller['Account']}")


def region(preflight: Preflight) -> Iterator[Finding]:
    name = preflight.environment.region
    answer = preflight.client("ec2").describe_regions(RegionNames=[name], AllRegions=True)
    status = answer["Regions"][0].get("OptInStatus", "opt-in-not-required")
    if status == "not-opted-in":
        remedy = f"aws account enable-region --region-name {name}, and wait until it is enabled"
        yield Finding("region", FAILED, f"{name} is not switched on in this account", remedy)
    else:
        yield Finding("region", OK, f"{name}: {status}")


def zones(preflight: Preflight) -> Iterator[Finding]:
    offered = {
        zone["ZoneName"]: zone
        for zone in preflight.client("ec2").describe_availability_zones()["AvailabilityZones"]
    }
    wanted = preflight.environment.availability_zones
    missing = [zone for zone in wanted if zone not in offered]
    ailing = [zone for zone in wanted if zone in offered and offered[zone].get("State") != "available"]
    if missing:
        yield Finding(
            "zones",
            FAILED,
            f"{', '.join(missing)} is not offered to this account; it has {', '.join(sorted(offered))}",
            f"list those in availability_zones of {preflight.config}",
        )
    elif ailing:
        yield Finding("zones", WARNING, f"{', '.join(ailing)}: {offered[ailing[0]]['State']}")
    else:
        listed = (f"{zone} ({offered[zone].get('ZoneId', 'no id')})" for zone in wanted)
        yield Finding("zones", OK, ", ".join(listed))


def services(preflight: Preflight) -> Iterator[Finding]:
    """Whether the services answer in the region: one without an endpoint there cannot be reached."""
    absent = []
    for service, (operation, parameters) in _PROBES.items():
        try:
            getattr(preflight.client(service), operation)(**parameters)
        except EndpointConnectionError:
            absent.append(service)
    where = preflight.environment.region
    if absent:
        remedy = "choose another region, or check the network between here and AWS"
        yield Finding("services", FAILED, f"{', '.join(absent)} does not answer in {where}", remedy)
    else:
        yield Finding("services", OK, f"{', '.join(_PROBES)} answer in {where}")


def bootstrap(preflight: Preflight) -> Iterator[Finding]:
    remedy = f"npx cdk bootstrap --context env={preflight.environment.name}"
    try:
        parameter = preflight.client("ssm").get_parameter(Name=BOOTSTRAP_PARAMETER)["Parameter"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        yield Finding("bootstrap", FAILED, "the region is not bootstrapped for the CDK", remedy)
        return
    version = int(parameter["Value"])
    if version < BOOTSTRAP_VERSION:
        found = f"version {version}, and {BOOTSTRAP_VERSION} is needed"
        yield Finding("bootstrap", FAILED, found, remedy)
    else:
        yield Finding("bootstrap", OK, f"version {version}, and {BOOTSTRAP_VERSION} is needed")


def logging_role(preflight: Preflight) -> Iterator[Finding]:
    """API Gateway has one role for logs per account and region; `api.log_role` says whether it is ours."""
    check = "API logging role"
    role = preflight.client("apigateway").get_account().get("cloudwatchRoleArn")
    ours = preflight.environment.api.log_role
    if role and ours and f"role/{preflight.names.resource('api')}" not in role:
        yield Finding(
            check,
            WARNING,
            f"{role} would be replaced, for every API of the region",
            f"api.log_role: false in {preflight.config} keeps it",
        )
    elif not role and not ours:
        yield Finding(
            check,
            FAILED,
            "API Gateway has no role to write the access log with",
            f"api.log_role: true in {preflight.config}",
        )
    else:
        yield Finding(check, OK, role or "made by the deployment")


def trails(preflight: Preflight) -> Iterator[Finding]:
    """A trail of its own beside an organization's records, and bills, management events twice."""
    if not preflight.environment.audit.trail:
        return
    found = preflight.client("cloudtrail").describe_trails(includeShadowTrails=True)["trailList"]
    ours = preflight.names.resource("audit")
    here = [trail["Name"] for trail in found if trail.get("HomeRegion") == preflight.environment.region]
    organization = [trail["Name"] for trail in found if trail.get("IsOrganizationTrail")]
    if ours not in here and len(here) >= TRAILS_PER_REGION:
        yield Finding(
            "trails",
            FAILED,
            f"the region has {len(here)} trails, and CloudTrail allows {TRAILS_PER_REGION}",
            f"delete one, or audit.trail: false in {preflight.config}",
        )
    elif organization:
        yield Finding(
            "trails",
            WARNING,
            f"the organization's trail {organization[0]} records this account already",
            f"audit.trail: false in {preflight.config}, if it also has data events of the models bucket",
        )
    else:
        yield Finding("trails", OK, f"{len(here)} of {TRAILS_PER_REGION} in the region")
