"""What the catalog knows about AWS regions without asking: their availability zones, and the id of S3's
prefix list in each.

AWS tells both only to who asks with credentials, and synthesis asks nobody. What a table cannot know (which
zones an account is offered, whether a region is switched on, whether an id still holds) `inferctl doctor`
asks.
"""

from difflib import get_close_matches

# Last letters of the zones' names. Source: AWS Regions and Availability Zones
# (docs.aws.amazon.com/global-infrastructure/latest/regions/aws-availability-zones.html), and the zones that
# moto's EC2 recorded from DescribeAvailabilityZones. Accounts older than November 2025 have letters of their
# own in the oldest regions, so a letter that any account has is listed.
ZONES = {
    "af-south-1": "abc",
    "ap-east-1": "abc",
    "ap-east-2": "abc",
    "ap-northeast-1": "abcd",
    "ap-northeast-2": "abcd",
    "ap-northeast-3": "abc",
    "ap-south-1": "abc",
    "ap-south-2": "abc",
    "ap-southeast-1": "abc",
    "ap-southeast-2": "abc",
    "ap-southeast-3": "abc",
    "ap-southeast-4": "abc",
    "ap-southeast-5": "abc",
    "ap-southeast-6": "abc",
    "ap-southeast-7": "abc",
    "ca-central-1": "abcd",
    "ca-west-1": "abc",
    "cn-north-1": "abcd",
    "cn-northwest-1": "abc",
    "eu-central-1": "abc",
    "eu-central-2": "abc",
    "eu-north-1": "abc",
    "eu-south-1": "abc",
    "eu-south-2": "abc",
    "eu-west-1": "abc",
    "eu-west-2": "abc",
    "eu-west-3": "abc",
    "il-central-1": "abc",
    "me-central-1": "abc",
    "me-south-1": "abc",
    "mx-central-1": "abc",
    "sa-east-1": "abc",
    "us-east-1": "abcdef",
    "us-east-2": "abc",
    "us-gov-east-1": "abc",
    "us-gov-west-1": "abc",
    "us-west-1": "abc",
    "us-west-2": "abcd",
}

# Regions that offer an account fewer zones than they have names.
_OFFERED = {"us-west-1": 2}

# The prefix list `com.amazonaws.<region>.s3`, for the regions where two independent public records of
# DescribePrefixLists agree. AWS never changed one. Elsewhere `network.s3_prefix_list` says it.
S3_PREFIX_LISTS = {
    "ap-northeast-1": "pl-61a54008",
    "ap-northeast-2": "pl-78a54011",
    "ap-northeast-3": "pl-a4a540cd",
    "ap-south-1": "pl-78a54011",
    "ap-southeast-1": "pl-6fa54006",
    "ap-southeast-2": "pl-6ca54005",
    "ca-central-1": "pl-7da54014",
    "eu-central-1": "pl-6ea54007",
    "eu-north-1": "pl-c3aa4faa",
    "eu-west-1": "pl-6da54004",
    "eu-west-2": "pl-7ca54015",
    "eu-west-3": "pl-23ad484a",
    "sa-east-1": "pl-6aa54003",
    "us-east-1": "pl-63a5400a",
    "us-east-2": "pl-7ba54012",
    "us-west-1": "pl-6ba54002",
    "us-west-2": "pl-68a54001",
}

# The same of `com.amazonaws.<region>.dynamodb`, and `network.dynamodb_prefix_list`.
DYNAMODB_PREFIX_LISTS = {
    "eu-west-1": "pl-6fa54006",
    "us-east-1": "pl-02cd2c6b",
    "us-west-2": "pl-00a54069",
}


# Where CloudFormation has no AWS::SageMaker::InferenceComponent. Source: the registry's schemas by region, as
# cfn-lint 1.x ships them; a newer one may know more.
WITHOUT_COMPONENTS = frozenset(
    {
        "af-south-1",
        "ap-east-1",
        "ap-east-2",
        "ap-northeast-3",
        "ap-south-2",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-west-1",
        "cn-north-1",
        "cn-northwest-1",
        "eu-central-2",
        "eu-south-1",
        "eu-south-2",
        "eu-west-3",
        "il-central-1",
        "mx-central-1",
        "us-gov-east-1",
        "us-gov-west-1",
        "us-west-1",
    }
)


def zones(region: str) -> list[str]:
    """Names of a region's zones: `us-east-2` -> `us-east-2a` to `us-east-2c`. KeyError for an unknown one."""
    return [region + letter for letter in ZONES[region]]


def zones_offered(region: str) -> int:
    """How many of a region's zones one account can use at most."""
    return _OFFERED.get(region, len(ZONES[region]))


def near(region: str) -> list[str]:
    """Known regions that look like a name that is none, the closest first; all of them if none does."""
    return get_close_matches(region, ZONES, n=3, cutoff=0.7) or list(ZONES)
