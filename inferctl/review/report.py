"""The verdict on what a deployment would change: what is dangerous, what of it is meant, how it is shown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.accepted import AcceptedChange
from inferctl.review.changes import changes
from inferctl.review.risk import Rated, Rating, rate
from inferctl.review.templates import Templates

ORDER: tuple[Rating, ...] = ("dangerous", "review", "safe")


@dataclass(frozen=True)
class Review:
    """All changes, the most dangerous first.

    Args:
        against: what was compared with, for the heading.
        accepted: reasons of the dangerous changes that are declared, by stack and logical id.
        stale: declarations of changes that are not, or no longer, among these.
    """

    environment: str
    against: str
    rated: tuple[Rated, ...]
    accepted: dict[tuple[str, str], str]
    stale: tuple[AcceptedChange, ...]

    @property
    def undeclared(self) -> list[Rated]:
        """What must not be deployed as it is."""
        return [each for each in self.rated if each.rating == "dangerous" and self.reason(each) is None]

    def reason(self, rated: Rated) -> str | None:
        """Why a dangerous change is meant, if it was declared."""
        return self.accepted.get((rated.change.stack, rated.change.resource))

    def counts(self) -> dict[Rating, int]:
        """How many changes have each rating."""
        return {rating: sum(each.rating == rating for each in self.rated) for rating in ORDER}

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "environment": self.environment,
            "counts": self.counts(),
            "changes": [
                {
                    "rating": each.rating,
                    "stack": each.change.stack,
                    "resource": each.change.resource,
                    "type": each.change.type,
                    "action": each.change.action,
                    "properties": [".".join(path) for path in each.change.properties],
                    "reasons": list(each.reasons),
                    "accepted": self.reason(each),
                }
                for each in self.rated
            ],
            "stale": [{"stack": entry.stack, "resource": entry.resource} for entry in self.stale],
        }

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Rating, stack, resource, action, and why; for a table."""
        return [
            (
                each.rating if self.reason(each) is None else "accepted",
                each.change.stack,
                f"{each.change.type.removeprefix('AWS::')} {each.change.resource}",
                each.change.action,
                self.reason(each) or "; ".join(each.reasons),
            )
            for each in self.rated
        ]

    def markdown(self) -> str:
        """A comment for a pull request. Its first line, invisible when shown, says what it is about."""
        counts = ", ".join(f"{number} {_WORDS[rating]}" for rating, number in self.counts().items() if number)
        lines = [
            f"<!-- inferctl diff {self.environment} -->",
            f"### {self.environment} against {_escaped(self.against)}: {counts or 'no changes'}",
            "",
        ]
        head = ["| Rating | Stack | Resource | Change | Why |", "|---|---|---|---|---|"]
        serious = [row for row in self.rows() if row[0] != "safe"]
        safe = [row for row in self.rows() if row[0] == "safe"]
        if serious:
            lines += [*head, *map(_line, serious), ""]
        if self.undeclared:
            lines += [
                "Dangerous changes stop here unless `tests/policy/accepted-changes.yaml` declares them.",
                "",
            ]
        for entry in self.stale:
            lines += [
                f"Stale in `accepted-changes.yaml`: {_escaped(entry.stack)} {_escaped(entry.resource)}",
                "",
            ]
        if safe:
            lines += ["<details><summary>Safe</summary>", "", *head, *map(_line, safe), "", "</details>", ""]
        return "\n".join(lines)


_WORDS: dict[Rating, str] = {"dangerous": "dangerous", "review": "to review", "safe": "safe"}


def review(
    environment: str, against: str, before: Templates, after: Templates, declared: Iterable[AcceptedChange]
) -> Review:
    """Rate everything that leads from `before` to `after`; of `declared`, what concerns this environment."""
    rated = [rate(change) for change in changes(before, after)]
    rated.sort(key=lambda each: ORDER.index(each.rating))
    ours = [entry for entry in declared if entry.environment == environment]
    dangerous = {(each.change.stack, each.change.resource) for each in rated if each.rating == "dangerous"}
    return Review(
        environment,
        against,
        tuple(rated),
        {entry.key: entry.reason for entry in ours if entry.key in dangerous},
        tuple(entry for entry in ours if entry.key not in dangerous),
    )


def _line(cells: Sequence[str]) -> str:
    rating, *others = (_escaped(cell) for cell in cells)
    return "| " + " | ".join([f"**{rating}**" if rating == "dangerous" else rating, *others]) + " |"


def _escaped(text: str) -> str:
    """Text of a template, as text: it cannot end the cell or become markup."""
    for character in "\\`*_{}[]<>|@#":
        text = text.replace(character, "\\" + character if character != "<" else "&lt;")
    return " ".join(text.split())
