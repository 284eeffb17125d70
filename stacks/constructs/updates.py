"""For how long SageMaker may take to change what serves a model: said here once, for deployments, which write
it into templates, and for releases, which read it from the model's parameter.
"""

from dataclasses import dataclass

from catalog.environment import Environment
from catalog.model import GpuModel
from stacks.constructs.problems import WAKING_SECONDS

DRAIN_SECONDS = 60
"""For which the old instances are kept once the new ones have all requests."""

LONGEST_SECONDS = 28_800
"""SageMaker's own limit."""


@dataclass(frozen=True)
class Update:
    """Times of an update, in seconds.

    Attributes:
        bake: for which the alarms are watched after each shift of traffic.
        drain: for which the old instances are kept after the last.
        longest: after which SageMaker gives up, which is a rollback that nobody asked for.
    """

    bake: int
    drain: int
    longest: int

    @classmethod
    def of(cls, spec: GpuModel, environment: Environment) -> "Update":
        bake, start = (
            spec.release.bake_seconds(environment.releases.bake_minutes),
            spec.gpu.startup_timeout_seconds,
        )
        if spec.sleeps:
            # One copy after the other, each perhaps on an instance that has to come first.
            longest = spec.scaling.max * (WAKING_SECONDS + start + bake)
        else:
            # Start, bake twice, and drain; instances take some minutes to come.
            longest = max(3600, start + 2 * bake + 1200)
        return cls(bake, min(DRAIN_SECONDS, bake), min(LONGEST_SECONDS, longest))
