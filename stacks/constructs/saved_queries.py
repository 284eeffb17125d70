"""Saved queries of CloudWatch Logs Insights: what on-call asks the logs, by name.

The platform's read the API's access log; a model's read that and its own log, joined by the request's id.
`inferctl logs` runs them; in the console they are under Logs Insights, Queries, by folder.

A join is a `stats … by request_id`: `max` of a field that only one of the lines has is that field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import aws_logs as logs

from catalog.model import ModelSpec
from stacks.base import PlatformStack

REQUEST_ID = logs.CfnQueryDefinition.QueryParameterProperty(
    name="request_id",
    default_value="00000000-0000-0000-0000-000000000000",
    description="The x-request-id of an answer",
)


@dataclass(frozen=True)
class SavedQuery:
    """A query and the question that it answers. `{{request_id}}` in it is a parameter.

    Args:
        targets: the targets whose logs have what it needs.
    """

    name: str
    question: str
    text: str
    targets: Sequence[str] = ("cpu", "gpu")


PLATFORM_QUERIES = (
    SavedQuery(
        "who-calls-what",
        "How much each client asks of each route, and how it goes",
        """
stats count(*) as requests, pct(latency_ms, 50) as p50_ms, pct(latency_ms, 99) as p99_ms
    by client_id, route, status
| sort requests desc
""",
    ),
    SavedQuery(
        "slowest-requests",
        "The requests that took longest, and how much of it was the model",
        """
fields @timestamp, request_id, client_id, route, status, latency_ms, integration_latency_ms
| sort latency_ms desc
| limit 50
""",
    ),
    SavedQuery(
        "errors-by-cause",
        "What fails, for how many clients, with a request to look at",
        """
filter status >= 400
| stats count(*) as requests, count_distinct(client_id) as clients, latest(request_id) as example
    by status, error, route
| sort requests desc
""",
    ),
    SavedQuery(
        "throttled-clients",
        "Who is told to slow down, and since when",
        """
filter status = 429
| stats count(*) as requests, earliest(@timestamp) as first, latest(@timestamp) as last
    by client_id, source_ip, route
| sort requests desc
""",
    ),
    SavedQuery(
        "cost-by-client",
        "Who makes the models work: seconds of functions and endpoints, and answered bytes, by client",
        """
parse route "/v2/models/*/*" as model, operation
| filter operation = "infer" and integration_latency_ms != "-"
| stats count(*) as requests, sum(integration_latency_ms / 1000) as model_seconds,
    sum(response_bytes) as answered_bytes by client_id, model
| sort model_seconds desc
""",
    ),
    SavedQuery(
        "one-request",
        "What the gateway knows of one request",
        """
filter request_id = "{{request_id}}"
| fields @timestamp, client_id, source_ip, method, route, status, latency_ms, integration_status,
    integration_latency_ms, response_bytes, error
""",
    ),
)

MODEL_QUERIES = (
    SavedQuery(
        "who-called-what-version",
        "Which clients were answered by which version of the model",
        """
filter ispresent(request_id)
| stats max(client_id) as client, max(version) as model_version, max(@timestamp) as at by request_id
| filter ispresent(client) and ispresent(model_version)
| stats count(*) as requests, min(at) as first, max(at) as last by client, model_version
| sort requests desc
""",
    ),
    SavedQuery(
        "cost-by-client",
        "What each client makes the model do: seconds of its time, bytes in and out",
        """
filter ispresent(request_id)
| stats max(client_id) as client, max(integration_latency_ms) as model_ms, max(bytes_in) as sent,
    max(bytes_out) as answered by request_id
| filter ispresent(client) and ispresent(sent)
| stats count(*) as requests, sum(model_ms / 1000) as model_seconds, sum(sent) as sent_bytes,
    sum(answered) as answered_bytes by client
| sort model_seconds desc
""",
    ),
    SavedQuery(
        "errors",
        "What the model's own log says went wrong",
        # A container that still loads answers its health check 503: that is no failure.
        """
filter level in ["ERROR", "CRITICAL"] or (ispresent(model) and status >= 500 and path != "/ping")
| fields @timestamp, request_id, version, message, reason, status, exception
| sort @timestamp desc
| limit 100
""",
    ),
    SavedQuery(
        "cold-starts",
        "How often a request waits for a new instance of the function, and how long",
        """
filter type = "platform.report"
| fields coalesce(record.metrics.initDurationMs, record.metrics.restoreDurationMs) as start_ms
| stats count(*) as invocations, count(start_ms) as cold_starts,
    cold_starts * 100 / invocations as cold_percent, avg(start_ms) as average_ms,
    max(start_ms) as longest_ms by bin(1h)
""",
        targets=("cpu",),
    ),
    SavedQuery(
        "one-request",
        "One request from end to end: every line of gateway and model that bears its id",
        """
filter request_id = "{{request_id}}"
| fields @timestamp, @log, message, client_id, route, model, version, status, latency_ms,
    cold_start, error, exception
| sort @timestamp asc
""",
    ),
)


def save_platform_queries(stack: PlatformStack) -> None:
    """Queries of the access log; no model's name is in them."""
    for query in PLATFORM_QUERIES:
        _save(stack, query, stack.names.query(query.name), [stack.names.log_group("api-access")])


def save_model_queries(stack: PlatformStack, model: ModelSpec) -> None:
    """Queries of one model's log and the access log; with the model's stack they go."""
    names = stack.names
    groups = [names.log_group("api-access"), names.model_log_group(model.name, model.home)]
    for query in MODEL_QUERIES:
        if model.target in query.targets:
            _save(stack, query, names.query(query.name, model.name), groups)


def _save(stack: PlatformStack, query: SavedQuery, name: str, groups: list[str]) -> None:
    logs.CfnQueryDefinition(
        stack,
        f"Query-{query.name}",
        name=name,
        log_group_names=groups,
        # A query may hold comments: the console shows the question above it.
        query_string=f"# {query.question}.\n{query.text.strip()}",
        parameters=[REQUEST_ID] if "{{request_id}}" in query.text else None,
    )
