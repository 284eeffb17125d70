"""The saved queries of an environment, run by CloudWatch Logs Insights.

What can be asked is what was deployed: this module knows no query by itself.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalog.names import Names
from inferctl.environment import Aws
from inferctl.errors import InferctlError, InputError

POLL_SECONDS = 0.5
LONGEST_SECONDS = 300

ONE_REQUEST = "one-request"
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MODEL_ROUTE = re.compile(r"/v2/models/(?P<model>[^/{}]+)(/|$)")


@dataclass(frozen=True)
class SavedQuery:
    """A query of the environment. `name` is `<query>` or `<model>/<query>`, `question` what it answers."""

    name: str
    question: str
    text: str
    groups: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Rows of texts; a row lacks the columns that it has no value for."""

    query: str
    rows: list[dict[str, str]]
    records_scanned: int
    bytes_scanned: int

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "query": self.query,
            "rows": self.rows,
            "records_scanned": self.records_scanned,
            "bytes_scanned": self.bytes_scanned,
        }


def seconds(text: str) -> int:
    """`90s`, `15m`, `1h`, `7d` or `2w` in seconds. Raises InputError."""
    found = re.fullmatch(r"([1-9]\d{0,5})([smhdw])", text)
    if found is None:
        raise InputError(f"{text!r} is not a length of time: use 90s, 15m, 1h, 7d or 2w.")
    return int(found[1]) * _UNITS[found[2]]


def saved(aws: Aws, environment: str) -> dict[str, SavedQuery]:
    """The environment's queries by name."""
    prefix = Names(environment).prefix + "/"
    logs, request = aws.client("logs"), {"queryDefinitionNamePrefix": prefix}
    found: dict[str, SavedQuery] = {}
    while True:
        page = logs.describe_query_definitions(**request)
        for each in page["queryDefinitions"]:
            first, _, rest = each["queryString"].partition("\n")
            name = each["name"].removeprefix(prefix)
            found[name] = SavedQuery(
                name,
                first.removeprefix("#").strip() if rest else "",
                each["queryString"],
                tuple(each.get("logGroupNames", ())),
                tuple(parameter["name"] for parameter in each.get("parameters", ())),
            )
        if not page.get("nextToken"):
            # The platform's first, then each model's.
            return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))
        request["nextToken"] = page["nextToken"]


def find(queries: Mapping[str, SavedQuery], name: str) -> SavedQuery:
    """The query called `name`. Raises InputError, with those there are."""
    if name not in queries:
        known = ", ".join(queries) or "none: the environment is not deployed here"
        raise InputError(f"There is no saved query {name!r}. There are: {known}.")
    return queries[name]


def run(aws: Aws, query: SavedQuery, since_seconds: int, request_id: str | None = None) -> Answer:
    """The answer over the last `since_seconds`. Raises InputError when the id is missing, or not needed."""
    logs, now = aws.client("logs"), int(time.time())
    started = logs.start_query(
        logGroupNames=list(query.groups),
        # What is happening now may be a second ahead of this machine's clock.
        startTime=now - since_seconds,
        endTime=now + 60,
        queryString=_filled_in(query, request_id),
    )
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        result = logs.get_query_results(queryId=started["queryId"])
        if result["status"] == "Complete":
            break
        if result["status"] not in ("Scheduled", "Running"):
            raise InferctlError(f"The query {query.name} ended as {result['status']}.")
        if time.monotonic() > deadline:
            logs.stop_query(queryId=started["queryId"])
            raise InferctlError(f"The query {query.name} took over {LONGEST_SECONDS} s: shorten --since.")
        time.sleep(POLL_SECONDS)
    rows = [
        {cell["field"]: cell["value"] for cell in row if cell["field"] != "@ptr"} for row in result["results"]
    ]
    statistics = result["statistics"]
    return Answer(query.name, rows, int(statistics["recordsScanned"]), int(statistics["bytesScanned"]))


def follow(aws: Aws, queries: Mapping[str, SavedQuery], since_seconds: int, request_id: str | None) -> Answer:
    """One request from end to end: the gateway's line says which model's log has the others."""
    at_gateway = run(aws, find(queries, ONE_REQUEST), since_seconds, request_id)
    routes = [_MODEL_ROUTE.match(row.get("route", "")) for row in at_gateway.rows]
    for model in (route["model"] for route in routes if route):
        if f"{model}/{ONE_REQUEST}" in queries:
            return run(aws, queries[f"{model}/{ONE_REQUEST}"], since_seconds, request_id)
    return at_gateway


def _filled_in(query: SavedQuery, request_id: str | None) -> str:
    if not query.parameters:
        if request_id is not None:
            raise InputError(f"The query {query.name} takes no --id.")
        return query.text
    if request_id is None:
        raise InputError(f"The query {query.name} needs --id, the x-request-id of an answer.")
    if not REQUEST_ID.fullmatch(request_id):
        raise InputError(f"{request_id!r} is not a request id: letters, digits and hyphens, 64 at most.")
    text = query.text
    for name in query.parameters:
        text = text.replace("{{" + name + "}}", request_id)
    return text
