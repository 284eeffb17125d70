"""Whether all is well: one alarm for the whole platform, made of everything that pages.

It notifies nobody, for each of its parts does: it is what a status page or a dashboard's headline asks.
"""

from collections.abc import Sequence

from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs.alarms import MAX_CHILDREN, PAGE, CompositeAlarm, any_of, of_model, rings
from stacks.constructs.schedule import DEAD_LETTERS
from stacks.observability import API_ERRORS


class HealthStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "health", environment, description="Health of the inference platform")
        # Alarms of other stacks, by name: they must exist when this is deployed.
        own = [rings(self.names.resource(name)) for name in (API_ERRORS, DEAD_LETTERS)]
        pages = [rings(self.names.resource(of_model(model, PAGE))) for model in models]
        groups = [pages[start : start + MAX_CHILDREN] for start in range(0, len(pages), MAX_CHILDREN)]
        if len(own) + len(pages) > MAX_CHILDREN:
            pages = [any_of([self._group(number, group)]) for number, group in enumerate(groups, 1)]
        CompositeAlarm(
            self,
            "platform",
            any_of([*own, *pages]),
            description="The platform is not well: a model pages, the API fails, or work was lost.",
            runbook="platform",
            notify=False,
        )

    def _group(self, number: int, pages: Sequence[str]) -> CompositeAlarm:
        """A part of the models: a rule names no more than MAX_CHILDREN alarms."""
        return CompositeAlarm(
            self,
            f"models-{number}",
            any_of(pages),
            description=f"A model of group {number} pages.",
            runbook="platform",
            notify=False,
        )
