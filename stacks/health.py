"""Whether all is well: a probe that calls the platform as its clients do, and one alarm for the whole.

The platform's alarm is made of everything that pages. It notifies nobody, for each of its parts does: it is
what a status page or a dashboard's headline asks.
"""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from constructs import Construct

from catalog.environment import Environment, Probe
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.bundling import ROOT
from stacks.constructs import metrics
from stacks.constructs.alarms import (
    MAX_CHILDREN,
    PAGE,
    PLATFORM,
    CompositeAlarm,
    PlatformAlarm,
    any_of,
    of_model,
    rings,
)
from stacks.constructs.client_credentials import read_credentials
from stacks.constructs.function import PlatformFunction
from stacks.constructs.schedule import DEAD_LETTERS, Trigger
from stacks.observability import API_ERRORS

PROBE_FAILURES = "probe-failures"


class HealthStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "health", environment, description="Health of the inference platform")
        # Alarms of other stacks, by name: they must exist when this is deployed.
        own = [rings(self.names.resource(name)) for name in (API_ERRORS, DEAD_LETTERS)]
        if environment.probe is not None:
            own.append(rings(self._probe(environment.probe).alarm_name))
        pages = [rings(self.names.resource(of_model(model, PAGE))) for model in models]
        groups = [pages[start : start + MAX_CHILDREN] for start in range(0, len(pages), MAX_CHILDREN)]
        if len(own) + len(pages) > MAX_CHILDREN:
            pages = [any_of([self._group(number, group)]) for number, group in enumerate(groups, 1)]
        CompositeAlarm(
            self,
            PLATFORM,
            any_of([*own, *pages]),
            description="The platform is not well: a model pages, the API fails, or work was lost.",
            runbook="platform",
            notify=False,
        )

    def _probe(self, probe: Probe) -> PlatformAlarm:
        """The function that calls, and the alarm that rings when it failed three times, or did not run."""
        statements, wildcards = read_credentials(self, probe.client)
        function = PlatformFunction(
            self,
            "Probe",
            source="probe",
            files={
                f"samples/{model}/{name}": ROOT / "models" / model / name
                for model in probe.models
                for name in ("sample.json", "expected.json")
            },
            description="Calls the platform's public address as a client does, and checks the answers",
            environment={
                "API_URL": self.shared("api/url"),
                "SECRET_ID": self.names.client_secret(probe.client),
                "MODELS": json.dumps(probe.models, separators=(",", ":")),
                "METRICS_NAMESPACE": self.names.metrics_namespace,
            },
            memory_mb=256,
            # Token, readiness and each model may take API Gateway's 29 seconds; no run may meet the next.
            timeout_seconds=min(30 * (2 + len(probe.models)), 60 * probe.minutes, 900),
            log_group_name=self.names.log_group("probe"),
            public=True,
            statements=statements,
            wildcards=wildcards,
        )
        every = cdk.Duration.minutes(probe.minutes)
        Trigger(
            self,
            "Run",
            function,
            description="Runs the synthetic client",
            schedule=events.Schedule.rate(every),
            # The next run says more than another attempt at this one.
            retries=0,
            max_age=cdk.Duration.minutes(1),
        )
        return PlatformAlarm(
            self,
            PROBE_FAILURES,
            metrics.probe("Failures", self.names, every),
            description="Page: the synthetic client was not served, or has not run, three times in a row.",
            runbook=PROBE_FAILURES,
            threshold=1,
            periods=3,
            missing=cloudwatch.TreatMissingData.BREACHING,
            notify=True,
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
