"""Services that are asked for here and that the embedded AWS has not: they say so, and at once.

MiniStack looks for a service that it does not know in all of botocore's models, and answers nobody meanwhile.
"""

from __future__ import annotations

from local_aws.registry import Service, register
from local_aws.wire import JsonService

# Name in a request's signature -> botocore's name, prefix of the operation's name in the request.
ABSENT = {
    "servicequotas": ("service-quotas", "ServiceQuotasV20190624."),
    "pricing": ("pricing", "AWSPriceListService."),
}


def install() -> None:
    """Register each with no operation at all."""
    for name, (botocore_name, target_prefix) in ABSENT.items():
        register(
            Service(
                name=name,
                handler=JsonService(botocore_name, {}).handle,
                target_prefix=target_prefix,
                host_patterns=(rf"{name}\.",),
                rest_models=(),
                resource_arn=lambda operation, parameters, path, region, account: "*",
            )
        )
