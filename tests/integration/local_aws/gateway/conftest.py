from collections.abc import Iterator

import pytest

from tests.integration.local_aws.gateway.client import ALLOW_ENDPOINTS, Cloud, running


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One embedded AWS with a scripted SageMaker, for all of these tests."""
    with running(tmp_path_factory.mktemp("aws")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def role(cloud: Cloud) -> str:
    """A role with which API Gateway may invoke every endpoint."""
    return cloud.role(ALLOW_ENDPOINTS)
