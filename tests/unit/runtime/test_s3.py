"""What is asked of S3 is what botocore would ask, and trouble is borne three times."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Theirs
from botocore.loaders import create_loader
from hypothesis import given
from hypothesis import strategies as st

from inference_runtime import s3
from inference_runtime.s3 import Credentials, S3Error
from tests.unit import fake_s3
from tests.unit.fake_s3 import FakeS3

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
REGION = "eu-west-1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    monkeypatch.setattr(s3, "PAUSE_SECONDS", 0)
    with fake_s3.configured(monkeypatch) as found:
        yield found


@given(
    st.sampled_from(["GET", "PUT"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40),
    st.none() | st.text("abc123/+=", min_size=1),
    st.sampled_from([{}, {"content-type": "application/jsonlines"}]),
)
def test_a_request_is_signed_as_botocore_signs_it(
    method: str, key: str, token: str | None, headers: dict[str, str]
) -> None:
    url = s3.address("models", key, {"AWS_REGION": REGION})
    found = s3.signed(method, url, headers, s3._EMPTY, Credentials("AKID", "secret", token), REGION, NOW)
    theirs = AWSRequest(method, url, headers={**headers, "X-Amz-Content-SHA256": s3._EMPTY})
    theirs.context["timestamp"] = found["x-amz-date"]
    auth = S3SigV4Auth(Theirs("AKID", "secret", token), "s3", REGION)
    auth._modify_request_before_signing(theirs)
    canonical = auth.canonical_request(theirs)
    signature = auth.signature(auth.string_to_sign(theirs, canonical), theirs)
    assert found["authorization"].endswith(f"Signature={signature}"), canonical


def test_an_object_is_where_botocore_says_in_every_region() -> None:
    for partition in create_loader().load_data("endpoints")["partitions"]:
        for region in partition["regions"]:
            found = s3.address("models", "a b/ü", {"AWS_REGION": region})
            assert found == f"https://models.s3.{region}.{partition['dnsSuffix']}/a%20b/%C3%BC"
    assert (
        s3.address("with.dots", "k", {"AWS_REGION": REGION})
        == f"https://s3.{REGION}.amazonaws.com/with.dots/k"
    )


def test_an_object_is_written_and_read_back(server: FakeS3, tmp_path: Path) -> None:
    s3.upload("data", "a/b c.jsonl", b"line\n", "application/jsonlines")
    method, path, headers = server.asked[-1]
    assert (method, path, headers["content-type"]) == ("PUT", "/data/a/b%20c.jsonl", "application/jsonlines")
    s3.download("data", "a/b c.jsonl", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"line\n"


@pytest.mark.parametrize("trouble", [500, 503, 429, 0])
def test_what_may_pass_is_tried_three_times(server: FakeS3, tmp_path: Path, trouble: int) -> None:
    server.objects["data/key"] = b"content"
    server.troubles.extend([trouble] * 2)
    s3.download("data", "key", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"
    server.troubles.extend([trouble] * 3)
    with pytest.raises(S3Error, match=str(trouble) if trouble else "IncompleteRead"):
        s3.download("data", "key", tmp_path / "file")
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("trouble", "reason"), [(404, "404 Not Found NoSuchKey"), (403, "403"), (307, "307")]
)
def test_a_refusal_is_said_at_once_and_no_redirection_followed(
    server: FakeS3, tmp_path: Path, trouble: int, reason: str
) -> None:
    server.troubles.append(trouble)
    with pytest.raises(S3Error, match=reason):
        s3.download("data", "key", tmp_path / "file")
    assert len(server.asked) == 1


def test_a_host_that_is_not_there_is_an_s3_error(
    server: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(S3Error, match="refused"):
        s3.download("data", "key", tmp_path / "file")


def test_a_function_from_a_snapshot_asks_lambda_for_its_credentials(
    server: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    document = {
        "AccessKeyId": "ASIA",
        "SecretAccessKey": "s",
        "Token": "t",
        "Expiration": "2026-01-01T00:00:00Z",
    }
    server.objects["credentials"] = json.dumps(document).encode()
    server.objects["data/key"] = b"content"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret-token")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", urlsplit(server.url).netloc)
    s3.download("data", "key", tmp_path / "file")
    (_, _, asked), (_, _, signed) = server.asked
    assert asked["authorization"] == "secret-token"
    assert "Credential=ASIA/" in signed["authorization"]
    assert signed["x-amz-security-token"] == "t"
