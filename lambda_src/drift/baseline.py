"""What a version's traffic looked like when it was new: the values of each feature, and how to make them.

It is kept for as long as the version may serve. Each feature's values are sorted by themselves, so that no
row, and no request, can be read from it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from features import CATEGORY, Columns, Feature, Floats, Plan, Table, counted, missing, present

SCHEMA = 1


@dataclass
class Known:
    """A feature in the baseline: how many values were looked at, how many of them were missing, and the
    others, sorted, or counted where they are categories.
    """

    rows: int
    missing: int
    values: Floats = field(default_factory=lambda: np.empty(0))
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Baseline:
    """
    Args:
        until: when the last of its captures was taken; windows begin then. None: it came with the artifact.
    """

    version: str
    rows: int
    until: datetime | None
    plan: Plan
    features: dict[Feature, Known]

    @classmethod
    def learn(
        cls, table: Table, version: str, until: datetime | None, categorical: Sequence[str]
    ) -> "Baseline":
        plan, columns = Plan.learn(table, categorical)
        return cls(version, table.rows, until, plan, known(columns))

    def to_json(self) -> bytes:
        document = {
            "schema": SCHEMA,
            "version": self.version,
            "rows": self.rows,
            "until": self.until and self.until.isoformat(),
            "plan": self.plan.to_json(),
            "features": [
                {
                    "side": feature.side,
                    "name": feature.name,
                    "kind": feature.kind,
                    "rows": each.rows,
                    "missing": each.missing,
                    "counts": dict(each.counts),
                    "values": each.values.tolist(),
                }
                for feature, each in self.features.items()
            ],
        }
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Baseline":
        document: dict[str, Any] = json.loads(content)
        return cls(
            document["version"],
            document["rows"],
            datetime.fromisoformat(document["until"]) if document["until"] else None,
            Plan.from_json(document["plan"]),
            {
                Feature(each["side"], each["name"], each["kind"]): Known(
                    each["rows"], each["missing"], np.array(each["values"], float), Counter(each["counts"])
                )
                for each in document["features"]
            },
        )


def known(columns: Columns) -> dict[Feature, Known]:
    found = {}
    for feature, values in columns.values.items():
        gone = missing(values)
        if feature.kind == CATEGORY:
            found[feature] = Known(len(values), gone, counts=counted(values))
        else:
            numbers = np.sort(present(values))  # type: ignore[arg-type]
            found[feature] = Known(len(values), gone, values=numbers)
    return found
