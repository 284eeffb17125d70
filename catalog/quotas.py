"""What `config/<env>.yaml` says of the account's quotas."""

from typing import Annotated

from pydantic import Field, field_validator

from catalog.instances import unknown
from catalog.section import Section, refusal, refuse

# The codes by which AWS knows them.
API_RESOURCES = "L-01C8A9E0"  # API Gateway: Resources/Routes per REST/WebSocket API
LAMBDA_CONCURRENCY = "L-B99A9384"  # Lambda: Concurrent executions


class Quotas(Section):
    """What AWS grants this account in this region, where it matters to the catalog. The defaults are AWS's.

    A catalog that needs more is refused before anything is deployed. Raise the quota first, in Service
    Quotas or by a ticket, then the number here.
    """

    api_resources: Annotated[
        int,
        Field(
            ge=1,
            description="Resources of the REST API, three per model and six for all (quota "
            f"{API_RESOURCES} of API Gateway, `Resources/Routes per REST/WebSocket API`).",
        ),
    ] = 300
    lambda_concurrency: Annotated[
        int,
        Field(
            ge=1,
            description=f"Lambda requests at once (quota {LAMBDA_CONCURRENCY} of Lambda, `Concurrent "
            "executions`). The models' `cpu.reserved_concurrency` must leave 100 of them to other functions.",
        ),
    ] = 1000
    instances: Annotated[
        dict[str, int],
        Field(
            description="Instances per type, as `ml.g5.xlarge: 8` (quotas `<type> for endpoint usage` of "
            "SageMaker). The sum of `scaling.max` of a type must not exceed its number; a type that is "
            "not here is not counted. Leave room for updates: while a blue/green update of an endpoint "
            "lasts, its instances run twice.",
        ),
    ] = {}

    @field_validator("instances")
    @classmethod
    def _existing_types(cls, value: dict[str, int]) -> dict[str, int]:
        reasons = {instance_type: unknown(instance_type) for instance_type in value}
        refuse(
            *(refusal(name, reason, name) for name, reason in reasons.items() if reason is not None),
            *(refusal(number, "must be >= 0", name) for name, number in value.items() if number < 0),
        )
        return value
