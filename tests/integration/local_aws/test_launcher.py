"""The process: where it listens, whom it trusts, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import botocore.exceptions
import httpx
import pytest

import local_aws
from local_aws import LocalAwsError, processes
from tests.integration.local_aws.embedded import BUCKET, OPERATE, Embedded, running, until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_serves_tls_with_an_authority_that_only_its_own_clients_trust(aws: Embedded) -> None:
    health = f"{aws.state.endpoint}/_ministack/health"
    trusted = ssl.create_default_context(cafile=aws.state.ca_bundle)

    assert httpx.get(health, verify=trusted).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(health, verify=ssl.create_default_context())


def test_listens_on_loopback_only(aws: Embedded) -> None:
    listening = Path("/proc/net/tcp")
    if not listening.exists():
        pytest.fail("this test reads /proc/net/tcp")
    sockets = {fd.readlink().name for fd in _descriptors(aws.state.pid)}
    rows = [line.split() for line in listening.read_text().splitlines()[1:]]
    ours = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    assert f"0100007F:{aws.state.port:04X}" in ours
    # The other is the functions' proxy.
    assert [address.partition(":")[0] for address in ours] == ["0100007F"] * 2


def _descriptors(pid: int) -> list[Path]:
    return [fd for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink() and os.path.lexists(fd)]


def test_key_and_state_are_readable_by_their_owner_only(aws: Embedded) -> None:
    for name in ("server-key.pem", "state.json"):
        assert stat.S_IMODE((aws.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(aws.home.stat().st_mode) == 0o700


@pytest.mark.parametrize("service", ["sts", "s3", "sagemaker", "cloudformation"])
@pytest.mark.parametrize("key", ["000000000000", "111122223333", "test"])
def test_nobody_is_root_without_its_secret(aws: Embedded, service: str, key: str) -> None:
    client = aws.client(service, {"AccessKeyId": key, "SecretAccessKey": "test"})
    call = {
        "sts": "get_caller_identity",
        "s3": "list_buckets",
        "sagemaker": "list_models",
        "cloudformation": "list_stacks",
    }[service]
    with pytest.raises(botocore.exceptions.ClientError, match=r"signature|security token|Access Key Id"):
        getattr(client, call)()


def test_starting_again_returns_the_server_that_runs(aws: Embedded) -> None:
    assert local_aws.start(home=aws.home) == aws.state
    assert local_aws.status(home=aws.home) == aws.state


def test_a_port_in_use_is_refused_by_number(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalAwsError, match=f"Port {port} is in use"):
            local_aws.start(port, home=home)


def test_a_server_that_cannot_start_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_aws.launcher, "server_command", lambda: [sys.executable, "-c", "1/0"])
    with pytest.raises(LocalAwsError, match="ZeroDivisionError"):
        local_aws.start(0, home=home)


def test_a_server_that_does_not_answer_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(local_aws.launcher, "server_command", lambda: sleeper)
    with pytest.raises(LocalAwsError, match="did not answer within 1 s"):
        local_aws.start(0, home=home, timeout=1)
    assert processes.marked(home.resolve()) == []


def test_a_stale_state_never_ends_another_process_with_the_same_number(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        home.mkdir()
        stale = {
            "pid": bystander.pid,
            "endpoint": "https://127.0.0.1:9",
            "region": "us-east-1",
            "account": "000000000000",
            "ca_bundle": str(home / "ca.pem"),
            "access_key_id": "x",
            "secret_access_key": "x",
        }
        (home / "state.json").write_text(json.dumps(stale))

        assert local_aws.status(home=home) is None
        assert local_aws.stop(home=home) is False
        assert bystander.poll() is None
        bystander.kill()


def test_containers_and_functions_end_with_a_server_that_is_killed(home: Path) -> None:
    with running(home) as embedded:
        role = embedded.role(
            *OPERATE,
            {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"},
        )
        embedded.client("s3").create_bucket(Bucket=BUCKET)
        embedded.client("s3").put_object(Bucket=BUCKET, Key="probe/1/manifest.json", Body=b"{}")
        endpoint = embedded.endpoint(embedded.config(embedded.model(role)))
        assert embedded.settled(endpoint)["EndpointStatus"] == "InService"
        container = embedded.ask(endpoint)["pid"]
        assert container in processes.marked(embedded.home)

        os.kill(embedded.state.pid, signal.SIGKILL)

        until(lambda: processes.marked(embedded.home) == [])
        assert local_aws.status(home=home) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_ends_with_the_command(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "local_aws", "--home", str(home), "start", "--port", "0", "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        until(lambda: local_aws.status(home=home))
        # As a terminal does it for Ctrl-C, and as a supervisor does it for the rest.
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(timeout=15) == 0
    assert processes.marked(home.resolve()) == []


def test_the_command_line_says_what_runs(aws: Embedded, home: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "local_aws", *arguments]
        return subprocess.run(whole, capture_output=True, text=True, check=False)

    running_one = command("--home", str(aws.home), "status", "--json")
    assert running_one.returncode == 0
    assert json.loads(running_one.stdout)["endpoint"] == aws.state.endpoint
    nothing = command("--home", str(home), "status")
    assert (nothing.returncode, nothing.stdout) == (3, "The embedded AWS is not running.\n")
    assert command("--home", str(home), "stop").returncode == 0
