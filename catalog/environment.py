"""What `config/<env>.yaml` says: one environment of the platform, in one account and region."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from catalog import regions
from catalog.callers import CLIENTS_PER_POOL, Client, Login
from catalog.data import Audit, Retention
from catalog.edge import Domain, Firewall, PrivateAccess
from catalog.quotas import Quotas
from catalog.section import Items, Name, Section, refusal, refuse

LOCAL = "local"


Cidr = Annotated[str, Field(pattern=r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$")]

# What EC2 refuses as the range of a VPC, CreateVpc.
_NEVER_A_VPC = [IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")]


def _range(value: str, *path: str | int) -> IPv4Network:
    """The range that `value` names; refused at `path` if it is none."""
    try:
        return IPv4Network(value)
    except ValueError as error:
        refuse(refusal(value, f"must be an IPv4 network address, as 10.20.0.0/16 ({error})", *path))
        raise  # refuse does, before


class ExistingVpc(Section):
    """A VPC that is already there, such as a landing zone's: docs/network.md says what it must have."""

    id: Annotated[
        str, Field(pattern=r"^vpc-[0-9a-f]{8,17}$", description="The VPC, as `vpc-0a1b2c3d4e5f60718`.")
    ]
    cidr: Annotated[
        Cidr | None,
        Field(
            description="The VPC's IPv4 range. Needed with `private_control_plane` where the VPC has the "
            "interface endpoints already: the control functions may call that range and nothing else."
        ),
    ] = None
    subnets: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^subnet-[0-9a-f]{8,17}$")]],
        Field(
            description="Zone -> id of its subnet without a route to the internet; one for each of "
            "`availability_zones`."
        ),
    ]
    create_endpoints: Annotated[
        bool,
        Field(
            description="Whether the platform makes the endpoints that it needs, which then carry its "
            "policies. `false`: the VPC has them."
        ),
    ] = False
    route_tables: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^rtb-[0-9a-f]{8,17}$")]],
        Field(
            description="Zone -> id of the route table of its subnet, which may be the same for all; with "
            "`create_endpoints` only: S3's endpoint is a route in each."
        ),
    ] = {}

    @field_validator("cidr")
    @classmethod
    def _is_a_range(cls, value: str | None) -> str | None:
        if value is not None:
            _range(value)
        return value

    @model_validator(mode="after")
    def _endpoints_go_into_route_tables(self) -> "ExistingVpc":
        wanted = self.subnets if self.create_endpoints else {}
        if self.route_tables.keys() != wanted.keys():
            refuse(
                refusal(
                    sorted(self.route_tables),
                    f"must have one route table for each zone of subnets: {', '.join(wanted)}"
                    if self.create_endpoints
                    else "is for create_endpoints: true only: nothing else changes route tables",
                    "route_tables",
                )
            )
        return self


class Network(Section):
    """The network that models and payloads stay in: one made here (`cidr`), or one that is there (`vpc`)."""

    cidr: Annotated[
        Cidr | None,
        Field(description="IPv4 range of the VPC that the platform makes, /16 to /22, as `10.20.0.0/16`."),
    ] = None
    vpc: Annotated[
        ExistingVpc | None, Field(description="A VPC that is already there, instead of `cidr`.")
    ] = None
    avoid_cidrs: Annotated[
        Items[Cidr],
        Field(
            description="Ranges that the VPC must not overlap, such as those of networks it is peered with. "
            "Other environments of the same account and region count by themselves."
        ),
    ] = ()
    private_control_plane: Annotated[
        bool,
        Field(
            description="Whether the functions that operate the platform run in the VPC too, with an "
            "interface endpoint per service that they call. Each endpoint costs by the hour and zone."
        ),
    ] = False
    s3_prefix_list: Annotated[
        str | None,
        Field(
            pattern=r"^pl-[0-9a-f]{8,17}$",
            description="Id of the prefix list `com.amazonaws.<region>.s3`, which is all that models may "
            "reach. Left out: the platform's table, which knows most regions.",
        ),
    ] = None
    dynamodb_prefix_list: Annotated[
        str | None,
        Field(
            pattern=r"^pl-[0-9a-f]{8,17}$",
            description="Id of the prefix list `com.amazonaws.<region>.dynamodb`, which control functions "
            "reach with `private_control_plane`. Left out: the platform's table, which knows few regions.",
        ),
    ] = None

    @field_validator("cidr")
    @classmethod
    def _is_a_vpc_range(cls, value: str | None) -> str | None:
        if value is None:
            return value
        network = _range(value)
        if not 16 <= network.prefixlen <= 22:
            refuse(refusal(value, "must have a prefix from /16 to /22: room for every zone's subnets"))
        if any(network.overlaps(never) for never in _NEVER_A_VPC):
            refuse(refusal(value, "must be a range that EC2 gives to a VPC, as one of 10.0.0.0/8"))
        return value

    @field_validator("avoid_cidrs")
    @classmethod
    def _does_not_overlap(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        ours = info.data.get("cidr")
        avoided = [_range(item, i) for i, item in enumerate(value)]
        refuse(
            *(
                refusal(value[i], f"overlaps network.cidr {ours}: choose another range there", i)
                for i, other in enumerate(avoided)
                if ours and other.overlaps(IPv4Network(ours))
            )
        )
        return value

    @model_validator(mode="after")
    def _one_network(self) -> "Network":
        if (self.cidr is None) == (self.vpc is None):
            refuse(
                refusal(
                    self.model_dump(include={"cidr", "vpc"}, exclude_none=True, mode="json"),
                    "must have either cidr: <range of a VPC to make> or vpc: <one that is there>",
                )
            )
        if self.vpc and self.private_control_plane and not self.vpc.create_endpoints and not self.vpc.cidr:
            refuse(
                refusal(
                    None,
                    "is required with private_control_plane: control functions call the VPC's interface "
                    "endpoints in that range. Or set create_endpoints: true",
                    "vpc",
                    "cidr",
                )
            )
        return self

    @property
    def range(self) -> IPv4Network | None:
        """The VPC's range, if it is known."""
        text = self.cidr or (self.vpc and self.vpc.cidr)
        return IPv4Network(text) if text else None


class Functions(Section):
    """What the Lambda functions run on."""

    python: Annotated[
        Literal["3.14", "3.13", "3.12", "3.11", "host"],
        Field(
            description="Python version of the Lambda runtime. `host`: the one that runs this command, "
            "for the embedded AWS (environment `local`) only."
        ),
    ] = "3.14"
    architecture: Annotated[
        Literal["x86_64", "arm64", "host"],
        Field(
            description="Instruction set of the functions. `host`: this machine's, for the embedded AWS "
            "(environment `local`) only."
        ),
    ] = "x86_64"
    phase_metrics: Annotated[
        bool,
        Field(
            description="`true`: how long reading, computing and writing an inference take, and loading the "
            "model, are metrics of each CPU model, as requests, errors and latency are. CloudWatch bills "
            "each of the four. The model's log has these times in any case."
        ),
    ] = False


@dataclass(frozen=True)
class EcrImage:
    """An image in ECR, named by its tag or its digest; the other is empty."""

    uri: str
    account: str
    region: str
    repository: str
    tag: str
    digest: str


class ContainerImage(Section):
    """Where the image of one folder of `inference_containers/` comes from: exactly one of the two."""

    image_uri: Annotated[
        str | None,
        Field(
            pattern=r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[a-z0-9._/-]+"
            r"(:[A-Za-z0-9._-]{1,128}|@sha256:[0-9a-f]{64})$",
            description="An image that is already in ECR, with its tag or digest.",
        ),
    ] = None
    build: Annotated[
        bool,
        Field(description="`true`: the deployment builds the folder's Dockerfile and pushes the image."),
    ] = False
    base_image: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}$",
            description="With `build: true`, the image to build on, as a mirror in your own registry. Left "
            "out: what the Dockerfile says.",
        ),
    ] = None

    @model_validator(mode="after")
    def _one_source(self) -> "ContainerImage":
        if self.build == (self.image_uri is not None):
            refuse(
                refusal(
                    self.model_dump(exclude_unset=True),
                    "must have either image_uri: <ECR address> or build: true",
                )
            )
        if self.base_image is not None and not self.build:
            refuse(refusal(self.base_image, "is for build: true only: an image_uri is already built"))
        return self

    @property
    def in_ecr(self) -> EcrImage | None:
        """What `image_uri` says, `<account>.dkr.ecr.<region>.amazonaws.com/<repository>` and what follows."""
        if self.image_uri is None:
            return None
        registry, _, path = self.image_uri.partition("/")
        account, _, _, region = registry.split(".")[:4]
        name, _, digest = path.partition("@")
        repository, _, tag = name.partition(":")
        return EcrImage(self.image_uri, account, region, repository, tag, digest)


class Api(Section):
    """The HTTPS API."""

    throttle_rate: Annotated[
        int,
        Field(
            ge=1, le=10000, description="Requests per second that the stage accepts, all clients together."
        ),
    ] = 100
    throttle_burst: Annotated[
        int,
        Field(ge=1, le=5000, description="Requests that the stage accepts at one moment above the rate."),
    ] = 200
    log_role: Annotated[
        bool,
        Field(
            description="Whether this environment creates the role with which API Gateway writes to "
            "CloudWatch Logs. There is one per account and region: exactly one environment there says `true`."
        ),
    ] = False
    domain: Annotated[
        Domain | None,
        Field(description="A domain name of your own. Left out: API Gateway's execute-api address."),
    ] = None
    private: Annotated[
        PrivateAccess | None,
        Field(description="For an API that only VPC endpoints reach. Left out: a public address."),
    ] = None

    @field_validator("private")
    @classmethod
    def _domain_is_public(cls, value: PrivateAccess | None, info: ValidationInfo) -> PrivateAccess | None:
        if value is not None and info.data.get("domain") is not None:
            reason = "cannot be combined with api.domain: AWS maps a regional domain to public APIs only"
            refuse(refusal(value.model_dump(), reason))
        return value


class Alarms(Section):
    """Who hears about alarms."""

    email: Annotated[
        str | None,
        Field(
            pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
            description="Address that alarms are sent to, once it has confirmed the subscription.",
        ),
    ] = None
    runbooks: Annotated[
        str,
        Field(
            pattern=r"^[^\s#]+$",
            max_length=256,
            description="Where on-call finds `docs/runbooks.md`, as `https://wiki.example.com/runbooks`: "
            "every alarm's description ends in this and the section's anchor.",
        ),
    ] = "docs/runbooks.md"


class Probe(Section):
    """The synthetic client: a function that calls the public address as a client would, and checks."""

    client: Annotated[
        Name,
        Field(description="The client under `clients` whose token it takes; it needs the scope `invoke`."),
    ]
    models: Annotated[
        Items[Name],
        Field(
            description="Models that it asks their `sample.json`, holding the answers against "
            "`expected.json`. Each run is a paid request to each."
        ),
    ] = ()
    minutes: Annotated[
        int, Field(ge=1, le=60, description="Minutes between two runs; three failures in a row ring.")
    ] = 5


class Releases(Section):
    """How versions are released here."""

    bake_minutes: Annotated[
        float | None,
        Field(
            ge=0.05,
            le=60,
            description="For a sandbox: minutes for which every new version is watched, whatever its model "
            "says under `release`, and however long judging takes. Meant for the embedded AWS, whose alarms "
            "and captures come within seconds. `null`: what each model says.",
        ),
    ] = None


class Ci(Section):
    """The GitHub repository whose workflows may deploy this environment and compare changes with it."""

    repository: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9-]+(@\d+)?/[A-Za-z0-9._-]+(@\d+)?$",
            description="The repository as its tokens name it: `owner/name`, or `owner@123/name@456` with "
            "immutable subject claims, as of mid-2026 the default of new repositories. GitHub says which: "
            "`gh api repos/<owner>/<name>/actions/oidc/customization/sub`.",
        ),
    ]
    oidc_provider: Annotated[
        bool,
        Field(
            description="Whether this environment makes GitHub's identity provider in IAM. There is one per "
            "account: exactly one environment there says `true`; it outlives its stack."
        ),
    ] = False


class Environment(Section):
    """One environment of the platform."""

    name: Annotated[
        str,
        Field(
            # Short: `inference-<env>-<model>` must fit SageMaker's 63 characters.
            pattern=r"^[a-z][a-z0-9]{1,11}$",
            description="The environment's name, as its file's: 2 to 12 lower-case letters and digits, a "
            "letter first. `local` is the embedded AWS.",
        ),
    ]
    account: Annotated[
        str | None,
        Field(
            pattern=r"^\d{12}$",
            description="AWS account, 12 digits in quotes. `null`: that of the profile which runs the "
            "command, for a sandbox.",
        ),
    ]
    region: Annotated[
        str,
        Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="AWS region, as `us-east-1`."),
    ]
    availability_zones: Annotated[
        Items[str],
        Field(
            min_length=2,
            max_length=3,
            description="Two or three availability zones of the region, as `us-east-1a`. Listed, so that "
            "synthesis asks nobody.",
        ),
    ]
    network: Annotated[Network, Field(description="The private network.")]
    functions: Annotated[Functions, Field(description="What Lambda functions run on.")] = Functions()
    containers: Annotated[
        dict[Name, ContainerImage],
        Field(description="Images by folder of `inference_containers/`; every GPU model's must be here."),
    ] = {}
    api: Annotated[Api, Field(description="The HTTPS API.")] = Api()
    firewall: Annotated[Firewall, Field(description="The web ACL before the API.")] = Firewall()
    clients: Annotated[Items[Client], Field(description="Applications that may take tokens.")] = ()
    login: Annotated[
        Login | None, Field(description="People who may log in. Left out: nobody, only applications.")
    ] = None
    retention: Annotated[Retention, Field(description="How long things are kept.")] = Retention()
    alarms: Annotated[Alarms, Field(description="Who hears about alarms.")] = Alarms()
    audit: Annotated[
        Audit, Field(description="The record of who did what, and the account's services that watch over it.")
    ] = Audit()
    quotas: Annotated[Quotas, Field(description="What AWS grants the account.")] = Quotas()
    probe: Annotated[
        Probe | None,
        Field(description="The synthetic client. Left out: nobody calls the platform but its clients."),
    ] = None
    releases: Annotated[Releases, Field(description="How versions are released here.")] = Releases()
    ci: Annotated[
        Ci | None,
        Field(description="Who deploys from GitHub. Left out: nobody, people deploy with their own profile."),
    ] = None

    @property
    def s3_prefix_list(self) -> str:
        """Id of the prefix list that holds S3's addresses in the environment's region."""
        return self.network.s3_prefix_list or regions.S3_PREFIX_LISTS[self.region]

    @property
    def dynamodb_prefix_list(self) -> str:
        """That of DynamoDB's, with a private control plane."""
        return self.network.dynamodb_prefix_list or regions.DYNAMODB_PREFIX_LISTS[self.region]

    @property
    def is_local(self) -> bool:
        """Whether this environment is the embedded AWS."""
        return self.name == LOCAL

    @field_validator("region")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in regions.ZONES:
            known = ", ".join(regions.near(value))
            refuse(
                refusal(value, f"is not a region that this release knows, as {known} (catalog/regions.py)")
            )
        return value

    @field_validator("availability_zones")
    @classmethod
    def _zones_of_the_region(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        region = info.data.get("region")
        repeated = (refusal(zone, "is listed twice", i) for i, zone in enumerate(value) if zone in value[:i])
        if region is None:
            refuse(*repeated)
            return value
        known = regions.zones(region)
        foreign = (
            refusal(zone, f"must be a zone of {region}: {', '.join(known)}", i)
            for i, zone in enumerate(value)
            if zone not in known
        )
        refuse(*foreign, *repeated)
        offered = regions.zones_offered(region)
        if len(value) > offered:
            refuse(refusal(list(value), f"must be at most {offered} zones: {region} offers no more"))
        return value

    @field_validator("network")
    @classmethod
    def _fits_region_and_zones(cls, value: Network, info: ValidationInfo) -> Network:
        region, zones = info.data.get("region"), info.data.get("availability_zones")
        tables = [("s3", value.s3_prefix_list, regions.S3_PREFIX_LISTS)]
        if value.private_control_plane:
            tables.append(("dynamodb", value.dynamodb_prefix_list, regions.DYNAMODB_PREFIX_LISTS))
        refuse(
            *(
                refusal(
                    None,
                    f"is required in {region}, which the platform's table lacks: what `aws ec2 "
                    f"describe-managed-prefix-lists --region {region} --filters "
                    f"Name=prefix-list-name,Values=com.amazonaws.{region}.{service}` shows",
                    f"{service}_prefix_list",
                )
                for service, given, table in tables
                if region is not None and given is None and region not in table
            )
        )
        if zones is not None and value.vpc is not None and set(value.vpc.subnets) != set(zones):
            refuse(
                refusal(
                    sorted(value.vpc.subnets),
                    f"must have one subnet for each of availability_zones: {', '.join(zones)}",
                    "vpc",
                    "subnets",
                )
            )
        return value

    @field_validator("functions")
    @classmethod
    def _host_is_local(cls, value: Functions, info: ValidationInfo) -> Functions:
        name = info.data.get("name")
        reason = (
            "is for the environment 'local' only, where this machine runs the functions: "
            "AWS Lambda needs a named {}"
        )
        if name is not None and name != LOCAL:
            refuse(
                *(
                    refusal("host", reason.format(what), field)
                    for field, what in (("python", "version"), ("architecture", "instruction set"))
                    if getattr(value, field) == "host"
                )
            )
        return value

    @field_validator("audit")
    @classmethod
    def _locked_records_outlive_the_stack(cls, value: Audit, info: ValidationInfo) -> Audit:
        retention = info.data.get("retention")
        if value.object_lock and retention and not retention.keep_data:
            reason = "keeps its bucket from being deleted with its stack: needs retention.keep_data: true"
            refuse(refusal(value.object_lock.model_dump(), reason, "object_lock"))
        return value

    @field_validator("api")
    @classmethod
    def _certificate_of_the_region(cls, value: Api, info: ValidationInfo) -> Api:
        region = info.data.get("region")
        if region and value.domain and f":acm:{region}:" not in value.domain.certificate_arn:
            reason = f"must be in {region}, the API's region: request or import the certificate there"
            refuse(refusal(value.domain.certificate_arn, reason, "domain", "certificate_arn"))
        return value

    @field_validator("clients")
    @classmethod
    def _distinct_clients(cls, value: tuple[Client, ...]) -> tuple[Client, ...]:
        names = [client.name for client in value]
        refuse(
            *(
                refusal(name, "is the name of another client", i, "name")
                for i, name in enumerate(names)
                if name in names[:i]
            )
        )
        apps = sum(len(client.credentials) for client in value)
        if apps >= CLIENTS_PER_POOL:
            refuse(
                refusal(
                    apps,
                    f"credentials are too many: Cognito's quota is {CLIENTS_PER_POOL} app clients per user "
                    "pool, and a login is one; ask AWS to raise it (up to 10000), or use two environments",
                )
            )
        return value

    @field_validator("probe")
    @classmethod
    def _probe_may_call(cls, value: Probe | None, info: ValidationInfo) -> Probe | None:
        api = info.data.get("api")
        if value is not None and api is not None and api.private is not None:
            refuse(refusal(value.model_dump(), "cannot reach an API that is private: remove one of the two"))
        able = [client.name for client in info.data.get("clients", ()) if "invoke" in client.scopes]
        if value is not None and value.client not in able:
            reason = f"must be one of the clients with the scope 'invoke': {', '.join(able) or 'none yet'}"
            refuse(refusal(value.client, reason, "client"))
        return value
