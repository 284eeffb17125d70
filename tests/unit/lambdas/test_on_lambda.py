"""A release on Lambda, where Lambda must be asked in a certain order."""

from collections.abc import Iterator
from typing import Any

import history
import pytest
from botocore.stub import Stubber
from on_lambda import ALIAS, OnLambda
from settings import Settings

from tests.unit.mocked_aws import create_releases, mocked_aws

MODEL, FUNCTION, EXECUTION = "tiny", "inference-dev-tiny", "arn:aws:states:us-east-1:1:execution:r:ours"
ALIASED = {"FunctionName": FUNCTION, "Qualifier": ALIAS}
REVISION = "12345678-1234-1234-1234-123456789012"


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A release that holds the model's turn: what it remembers outlives any one of its steps."""
    with mocked_aws(monkeypatch, TABLE="releases"):
        create_releases()
        history._table.cache_clear()
        assert history.take_turn(MODEL, history.entry_of("1.1.0", "2026-01-02T03:04:05Z"), EXECUTION) is None
        yield
        history._table.cache_clear()


def function() -> tuple[OnLambda, Stubber]:
    """A model's function, and what Lambda is asked and answers, in that order."""
    settings = Settings(
        **{
            "model": MODEL, "home": "cpu", "name": FUNCTION, "validator": "v", "stack": "s", "log_group": "l",
            "canary_percent": 10, "bake_seconds": 60, "drain_seconds": 0, "update_seconds": 600, "alarms": [],
            "public": True, "availability_percent": 99.9, "p99_ms": 100, "minimum_requests": 10,
            "prediction_shift": None, "captures": None,
        }
    )  # fmt: skip
    home = OnLambda(settings)
    return home, Stubber(home._lambda)


def routed(stubber: Stubber, before: str, after: str, weights: dict[str, float]) -> None:
    alias = {"AliasArn": "a", "Name": ALIAS, "FunctionVersion": before, "RevisionId": REVISION}
    stubber.add_response("get_alias", alias, {"FunctionName": FUNCTION, "Name": ALIAS})
    asked: dict[str, Any] = {
        "FunctionName": FUNCTION, "Name": ALIAS, "FunctionVersion": after, "RevisionId": REVISION,
        "RoutingConfig": {"AdditionalVersionWeights": weights},
    }  # fmt: skip
    stubber.add_response("update_alias", {**alias, "FunctionVersion": after}, asked)


def test_provisioned_concurrency_leaves_before_the_alias_has_weights_and_returns_with_the_end() -> None:
    home, stubber = function()
    held = {"RequestedProvisionedConcurrentExecutions": 3, "Status": "READY"}
    stubber.add_response("get_provisioned_concurrency_config", held, ALIASED)
    stubber.add_response("delete_provisioned_concurrency_config", {}, ALIASED)
    routed(stubber, "1", "1", {"2": 0.1})
    with stubber:
        home.shift({"version": "2", "before": "1"}, 10)
    stubber.assert_no_pending_responses()

    # A later step, in another environment of the function that runs them: it has what was remembered.
    home, stubber = function()
    variables = {"MODEL_SHA256": "new", "MODEL_URI": "s3://models/new"}
    latest = {"Environment": {"Variables": variables}, "RevisionId": REVISION}
    stubber.add_response(
        "get_function_configuration", latest, {"FunctionName": FUNCTION, "Qualifier": "$LATEST"}
    )
    stubber.add_response(
        "put_provisioned_concurrency_config",
        {"RequestedProvisionedConcurrentExecutions": 3, "Status": "IN_PROGRESS"},
        {**ALIASED, "ProvisionedConcurrentExecutions": 3},
    )
    stubber.add_response(
        "get_alias",
        {"AliasArn": "a", "Name": ALIAS, "FunctionVersion": "2", "RevisionId": REVISION},
        {"FunctionName": FUNCTION, "Name": ALIAS},
    )
    stubber.add_response(
        "list_versions_by_function", {"Versions": [{"Version": "2"}]}, {"FunctionName": FUNCTION}
    )
    with stubber:
        home.finish("new", "s3://models/new", [])
    stubber.assert_no_pending_responses()


def test_a_function_without_provisioned_concurrency_is_shifted_alike() -> None:
    home, stubber = function()
    stubber.add_client_error(
        "get_provisioned_concurrency_config", "ProvisionedConcurrencyConfigNotFoundException"
    )
    routed(stubber, "1", "1", {"2": 0.1})
    with stubber:
        home.shift({"version": "2", "before": "1"}, 10)
    stubber.assert_no_pending_responses()
    assert "suspended" not in history.remembered(MODEL)
