from collections.abc import Iterator

import pytest

from tests.integration.local_aws.embedded import BUCKET, OPERATE, Embedded, running


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One embedded AWS for all of these tests; every test uses names of its own."""
    with running(
        tmp_path_factory.mktemp("embedded"),
        LOCAL_AWS_MAX_WAIT="1",
        LOCAL_AWS_MINUTE="1",
        LOCAL_AWS_SCALING_MINUTE="0.2",
    ) as embedded:
        s3 = embedded.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for name in ("manifest.json", "model.onnx"):
            s3.put_object(Bucket=BUCKET, Key=f"probe/1/{name}", Body=b"{}")
        yield embedded


@pytest.fixture(scope="session")
def role(aws: Embedded) -> str:
    """A role with which SageMaker may serve the models."""
    return aws.role(
        *OPERATE,
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"},
    )


@pytest.fixture(scope="session")
def endpoint(aws: Embedded, role: str) -> str:
    """An endpoint in service, for tests that do not change it."""
    name = aws.endpoint(aws.config(aws.model(role, VERSION="1")))
    assert aws.settled(name)["EndpointStatus"] == "InService"
    return name
