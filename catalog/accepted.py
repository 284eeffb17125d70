"""What `tests/policy/accepted-changes.yaml` says: dangerous changes that are meant."""

import re
from typing import Annotated

from pydantic import Field

from catalog.section import Items, Section

_STACK = r"^inference-([a-z][a-z0-9]{1,11})-[a-z0-9-]+$"


class AcceptedChange(Section):
    """One dangerous change that is meant."""

    stack: Annotated[str, Field(pattern=_STACK, description="The stack, as `inference-prod-storage`.")]
    resource: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9<>]+$",
            description="The resource's logical id, as `inferctl diff` prints it.",
        ),
    ]
    reason: Annotated[
        str,
        Field(
            min_length=20,
            description="Why it is meant, and what becomes of the data; 20 characters at least.",
        ),
    ]

    @property
    def environment(self) -> str:
        """The environment that the stack is of."""
        match = re.match(_STACK, self.stack)
        assert match is not None
        return match[1]

    @property
    def key(self) -> tuple[str, str]:
        return self.stack, self.resource


class AcceptedChanges(Section):
    """The dangerous changes that the next deployments may carry out."""

    accepted: Annotated[Items[AcceptedChange], Field(description="Empty, most of the time.")] = ()
