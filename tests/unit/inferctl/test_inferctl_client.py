"""The Python client: tokens, retries, and what its errors say."""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from inferctl.client import Client, ClientCredentials
from inferctl.errors import CredentialsError, ProblemError, UnreachableError

Handler = Callable[[httpx.Request], httpx.Response]
URL = "https://api.test/dev"
PROBLEM = {
    "type": "urn:inference-platform:problem:invalid-shape",
    "title": "Invalid shape",
    "status": 400,
    "detail": "inputs[0].shape: [2] does not hold 3 values.",
    "request_id": "r-7",
}


class Script:
    """Answers requests one after the other, the last answer for ever, and keeps what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(script: Script, pauses: list[float] | None = None) -> Client:
    sleep = (pauses if pauses is not None else []).append
    return Client(URL, lambda: "a-token", transport=httpx.MockTransport(script), sleep=sleep)


def ok(document: Any) -> httpx.Response:
    return httpx.Response(200, json=document)


class TestCalls:
    def test_an_inference_is_posted_as_json_with_the_token(self) -> None:
        script = Script(ok({"outputs": []}))
        request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.5]}]}
        assert client(script).infer("my-model", request) == {"outputs": []}
        (sent,) = script.requests
        assert (sent.method, str(sent.url)) == ("POST", f"{URL}/v2/models/my-model/infer")
        assert sent.headers["authorization"] == "Bearer a-token"
        assert sent.headers["content-type"] == "application/json"

    def test_a_name_cannot_lead_to_another_path(self) -> None:
        script = Script(ok({}))
        client(script).metadata("../admin?x=1")
        assert script.requests[0].url.raw_path == b"/dev/v2/models/..%2Fadmin%3Fx%3D1"

    def test_models_and_metadata_are_read(self) -> None:
        assert client(Script(ok({"models": [{"name": "a"}]}))).models() == [{"name": "a"}]
        assert client(Script(ok({"name": "a"}))).metadata("a") == {"name": "a"}

    def test_readiness_is_yes_no_or_an_error(self) -> None:
        assert client(Script(ok({"ready": True}))).ready("a")
        assert not client(Script(httpx.Response(503, json=PROBLEM))).ready("a")
        with pytest.raises(ProblemError, match="404"):
            client(Script(httpx.Response(404, json=PROBLEM))).ready("a")

    def test_without_tokens_no_authorization_is_sent(self) -> None:
        script = Script(ok({"models": []}))
        Client(URL, None, transport=httpx.MockTransport(script)).models()
        assert "authorization" not in script.requests[0].headers


class TestErrors:
    def test_a_problem_document_becomes_its_error(self) -> None:
        with pytest.raises(ProblemError) as caught:
            client(Script(httpx.Response(400, json=PROBLEM))).infer("m", {})
        assert caught.value.document() == PROBLEM
        assert caught.value.slug == "invalid-shape"
        assert str(caught.value) == (
            "400 Invalid shape: inputs[0].shape: [2] does not hold 3 values. (request r-7)"
        )

    def test_an_answer_that_is_no_problem_document_still_says_its_status(self) -> None:
        with pytest.raises(ProblemError) as caught:
            client(Script(httpx.Response(502, text="<html>"))).infer("m", {})
        assert (caught.value.status, caught.value.type, caught.value.title) == (
            502,
            "about:blank",
            "Bad Gateway",
        )

    def test_a_success_that_is_not_json_is_an_error(self) -> None:
        with pytest.raises(UnreachableError, match="not with a JSON object"):
            client(Script(httpx.Response(200, text="hello"))).metadata("m")

    @pytest.mark.parametrize(("status", "exit_status"), [(400, 1), (401, 4), (403, 4), (404, 1), (503, 1)])
    def test_only_refused_access_has_its_own_exit_status(self, status: int, exit_status: int) -> None:
        with pytest.raises(ProblemError) as caught:
            client(Script(httpx.Response(status, json=PROBLEM))).infer("m", {})
        assert caught.value.exit_status == exit_status


class TestRetries:
    def test_a_get_waits_as_long_as_retry_after_says(self) -> None:
        pauses: list[float] = []
        busy = httpx.Response(503, json=PROBLEM, headers={"Retry-After": "7"})
        assert client(Script(busy, ok({"name": "m"})), pauses).metadata("m") == {"name": "m"}
        assert pauses == [7.0]

    def test_retry_after_may_be_a_date(self) -> None:
        pauses: list[float] = []
        date = formatdate(time.time() + 10, usegmt=True)
        client(
            Script(httpx.Response(429, json=PROBLEM, headers={"Retry-After": date}), ok({})), pauses
        ).metadata("m")
        assert 8 < pauses[0] <= 10

    def test_without_it_pauses_double_and_attempts_end(self) -> None:
        pauses: list[float] = []
        script = Script(httpx.ConnectError("refused"))
        with pytest.raises(UnreachableError):
            client(script, pauses).models()
        assert pauses == [0.5, 1.0, 2.0]
        assert len(script.requests) == 4

    def test_a_pause_longer_than_a_person_waits_is_reported_instead(self) -> None:
        pauses: list[float] = []
        with pytest.raises(ProblemError) as caught:
            client(
                Script(httpx.Response(503, json=PROBLEM, headers={"Retry-After": "600"})), pauses
            ).metadata("m")
        assert caught.value.retry_after == 600
        assert pauses == []

    @pytest.mark.parametrize("status", [400, 401, 404, 500, 504])
    def test_other_statuses_are_not_retried(self, status: int) -> None:
        script = Script(httpx.Response(status, json=PROBLEM))
        with pytest.raises(ProblemError):
            client(script).models()
        assert len(script.requests) == 1

    @pytest.mark.parametrize("answer", [httpx.Response(503, json=PROBLEM), httpx.ReadTimeout("slow")])
    def test_an_inference_is_never_repeated(self, answer: httpx.Response | Exception) -> None:
        script = Script(answer)
        with pytest.raises((ProblemError, UnreachableError)):
            client(script).infer("m", {})
        assert len(script.requests) == 1


class TestTokens:
    def credentials(self, script: Script, clock: Callable[[], float] = lambda: 0.0) -> ClientCredentials:
        return ClientCredentials(
            "https://auth.test/oauth2/token",
            "id",
            "s3cret",
            scopes=("inference/invoke",),
            headers={"Host": "pool.auth.test"},
            transport=httpx.MockTransport(script),
            clock=clock,
        )

    def test_it_is_taken_with_basic_authentication_and_the_client_credentials_grant(self) -> None:
        script = Script(ok({"access_token": "t", "expires_in": 3600}))
        assert self.credentials(script)() == "t"
        (sent,) = script.requests
        assert sent.headers["authorization"] == "Basic aWQ6czNjcmV0"
        assert sent.headers["host"] == "pool.auth.test"
        assert sent.content == b"grant_type=client_credentials&scope=inference%2Finvoke"

    def test_it_is_kept_for_three_quarters_of_its_life(self) -> None:
        now = [0.0]
        tokens = (ok({"access_token": name, "expires_in": 100}) for name in ("first", "second"))
        credentials = self.credentials(Script(*tokens), lambda: now[0])
        assert credentials() == "first"
        now[0] = 74.9
        assert credentials() == "first"
        now[0] = 75.0
        assert credentials() == "second"

    def test_a_refused_client_is_told_why(self) -> None:
        with pytest.raises(CredentialsError, match="invalid_client"):
            self.credentials(Script(httpx.Response(400, json={"error": "invalid_client"})))()

    @pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), httpx.Response(503)])
    def test_an_endpoint_that_does_not_answer_is_unreachable(
        self, answer: httpx.Response | Exception
    ) -> None:
        with pytest.raises(UnreachableError, match="token endpoint"):
            self.credentials(Script(answer))()
