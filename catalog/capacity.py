"""What the catalog asks of the account's quotas, counted before anything is deployed."""

from collections import Counter
from collections.abc import Iterator, Sequence

from catalog.environment import Environment
from catalog.errors import Problem
from catalog.model import CpuModel, GpuModel, ModelSpec
from catalog.quotas import LAMBDA_CONCURRENCY

UNRESERVED = 100
"""Lambda keeps this much concurrency for functions without a reservation."""


def problems(environment: Environment, models: Sequence[ModelSpec]) -> Iterator[Problem]:
    """The quotas of `environment` that `models` exceed, but for those that only the stacks can count."""
    granted = environment.quotas
    reserved = reserved_concurrency(models)
    if reserved > granted.lambda_concurrency - UNRESERVED:
        yield exceeded(
            environment,
            "lambda_concurrency",
            f"the models reserve {reserved} Lambda requests at once with cpu.reserved_concurrency, of "
            f"{granted.lambda_concurrency} less the {UNRESERVED} that Lambda keeps for other functions",
            f"`Concurrent executions`, {LAMBDA_CONCURRENCY} of Lambda",
            "reserve less",
        )
    for instance_type, (_, most) in instances(models).items():
        if most > granted.instances.get(instance_type, most):
            yield exceeded(
                environment,
                f"instances.{instance_type}",
                f"the models may scale to {most} instances (the sum of scaling.max) of "
                f"{granted.instances[instance_type]}, and an endpoint runs its own twice while it is updated",
                f"`{instance_type} for endpoint usage` of SageMaker",
                "lower scaling.max",
            )


def reserved_concurrency(models: Sequence[ModelSpec]) -> int:
    """The Lambda requests at once that the models set aside for themselves."""
    return sum(model.cpu.reserved_concurrency or 0 for model in models if isinstance(model, CpuModel))


def instances(models: Sequence[ModelSpec]) -> dict[str, tuple[int, int]]:
    """The instances of each type, sorted, that the models start with and that they may scale to."""
    least, most = Counter[str](), Counter[str]()
    for model in models:
        if isinstance(model, GpuModel):
            # One that sleeps runs while it is deployed.
            least[model.gpu.instance_type] += max(model.scaling.min, 1)
            most[model.gpu.instance_type] += model.scaling.max
    return {instance_type: (least[instance_type], most[instance_type]) for instance_type in sorted(most)}


def exceeded(environment: Environment, field: str, need: str, quota: str, instead: str) -> Problem:
    """A quota that does not cover the catalog, and both ways out."""
    remedy = f"raise the quota {quota}, and then this number, or {instead}"
    return Problem(f"config/{environment.name}.yaml", 1, f"quotas.{field}", f"{need}: {remedy}")
