"""Which method of a deployed API serves a request."""

from typing import Any

import pytest

from local_aws.gateway.deployments import Deployment


def deployment(*routes: str) -> Deployment:
    resources: dict[str, dict[str, Any]] = {}
    for route in routes:
        verb, path = route.split(" ")
        resource = resources.setdefault(path, {"path": path, "resourceMethods": {}})
        resource["resourceMethods"][verb] = {"name": route}
    return Deployment(resources, [], None)


API = deployment(
    "GET /",
    "GET /v2/models",
    "GET /v2/models/{name}",
    "POST /v2/models/{name}/infer",
    "POST /v2/models/a/infer",
    "ANY /v2/{proxy+}",
    "GET /v2/models/{name}/{rest+}",
)


@pytest.mark.parametrize(
    ("request_line", "route", "parameters"),
    [
        ("GET /", "GET /", {}),
        ("GET /v2/models", "GET /v2/models", {}),
        ("GET /v2/models/", "GET /v2/models", {}),
        ("GET /v2/models/b", "GET /v2/models/{name}", {"name": "b"}),
        ("POST /v2/models/a/infer", "POST /v2/models/a/infer", {}),
        ("POST /v2/models/b/infer", "POST /v2/models/{name}/infer", {"name": "b"}),
        ("GET /v2/models/b/infer", "GET /v2/models/{name}/{rest+}", {"name": "b", "rest": "infer"}),
        ("PUT /v2/models/b", "ANY /v2/{proxy+}", {"proxy": "models/b"}),
        ("GET /v2/x/y/z", "ANY /v2/{proxy+}", {"proxy": "x/y/z"}),
    ],
)
def test_the_most_specific_resource_that_has_the_method_serves(
    request_line: str, route: str, parameters: dict[str, str]
) -> None:
    found = API.route(*request_line.split(" "))
    assert found is not None
    assert (found.verb["name"], found.path_parameters) == (route, parameters)


@pytest.mark.parametrize("request_line", ["POST /", "GET /v3", "GET /v2"])
def test_other_requests_have_no_route(request_line: str) -> None:
    assert API.route(*request_line.split(" ")) is None
