"""What the catalog asks of the account's quotas, counted before anything is deployed."""

from collections import Counter
from collections.abc import Iterator, Sequence

from catalog.environment import Environment
from catalog.errors import Problem
from catalog.model import CpuModel, GpuModel, ModelSpec

UNRESERVED = 100
"""Lambda keeps this much concurrency for functions without a reservation."""


def problems(environment: Environment, models: Sequence[ModelSpec]) -> Iterator[Problem]:
    """The quotas of `environment` that `models` exceed, but for those that only the stacks can count."""
    granted = environment.quotas
    reserved = sum(model.cpu.reserved_concurrency or 0 for model in models if isinstance(model, CpuModel))
    if reserved > granted.lambda_concurrency - UNRESERVED:
        yield exceeded(
            environment,
            "lambda_concurrency",
            f"the models reserve {reserved} Lambda requests at once with cpu.reserved_concurrency, of "
            f"{granted.lambda_concurrency} less the {UNRESERVED} that Lambda keeps for other functions",
            "`Concurrent executions`, L-B99A9384 of Lambda",
            "reserve less",
        )
    instances: Counter[str] = Counter()
    for model in models:
        if isinstance(model, GpuModel):
            instances[model.gpu.instance_type] += model.scaling.max
    for instance_type, most in sorted(instances.items()):
        if most > granted.instances.get(instance_type, most):
            yield exceeded(
                environment,
                f"instances.{instance_type}",
                f"the models may scale to {most} instances (the sum of scaling.max) of "
                f"{granted.instances[instance_type]}, and an endpoint runs its own twice while it is updated",
                f"`{instance_type} for endpoint usage` of SageMaker",
                "lower scaling.max",
            )


def exceeded(environment: Environment, field: str, need: str, quota: str, instead: str) -> Problem:
    """A quota that does not cover the catalog, and both ways out."""
    remedy = f"raise the quota {quota}, and then this number, or {instead}"
    return Problem(f"config/{environment.name}.yaml", 1, f"quotas.{field}", f"{need}: {remedy}")
