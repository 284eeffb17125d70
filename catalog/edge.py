"""Where the API is reached, and what stands before it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from catalog.section import Items, Section, each_once


class Domain(Section):
    """A domain name of your own for the API."""

    name: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$",
            max_length=253,
            description="The host name, as `inference.example.com`.",
        ),
    ]
    certificate_arn: Annotated[
        str,
        Field(
            pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}$",
            description="ARN of the issued certificate for that name, in ACM of the API's own region.",
        ),
    ]
    hosted_zone_id: Annotated[
        str | None,
        Field(
            pattern=r"^Z[A-Z0-9]{1,31}$",
            description="Route 53 hosted zone that gets the alias record. Left out: point the name at the "
            "domain's regional address yourself.",
        ),
    ] = None
    keep_default_endpoint: Annotated[
        bool,
        Field(
            description="Whether the API also answers at its execute-api address; `true` while clients move."
        ),
    ] = False


class PrivateAccess(Section):
    """An API that only VPC endpoints reach."""

    vpc_endpoint_ids: Annotated[
        Items[Annotated[str, Field(pattern=r"^vpce-[0-9a-f]{8,17}$")]],
        Field(
            min_length=1,
            description="The interface endpoints of execute-api that callers come through, as "
            "`vpce-0123456789abcdef0`. No other request is answered.",
        ),
    ]

    @field_validator("vpc_endpoint_ids")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(value)


# A rate rule's counts are by the window, which is five minutes here, and its least is 10 (AWS WAF).
Rate = Annotated[int, Field(ge=10, le=2_000_000_000)]


class Firewall(Section):
    """The web ACL before the API."""

    enabled: Annotated[bool, Field(description="Whether the API has a web ACL (AWS WAF).")] = True
    requests_per_ip: Annotated[
        Rate,
        Field(
            description="Requests in five minutes that one source address may send; more are answered 429. "
            "A company's clients may all come from one address."
        ),
    ] = 10_000
    requests_per_token: Annotated[
        Rate, Field(description="Requests in five minutes with one access token; more are answered 429.")
    ] = 10_000
    inspected_body_kb: Annotated[
        Literal[16, 32, 48, 64],
        Field(
            description="How much of a body AWS WAF looks at, in KB; above 16 AWS charges more. It never "
            "blocks an inference for its body."
        ),
    ] = 16
