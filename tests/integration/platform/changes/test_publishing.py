"""How versions get in: what a pipeline uploads, or a package of the registry brings, goes live if it is as it
must be, and changes nothing otherwise. After each: what serves, what the history says, and who heard of it.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app import ROOT
from inference_runtime.manifest import TensorSpec
from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.hearing import Heard, hearing
from tests.integration.platform.releasing import (
    ACCOUNT,
    MODELS,
    NAMES,
    REGION,
    Callers,
    ended,
    live,
    serving,
    settings,
    start,
)
from tests.integration.platform.versions import (
    incoming,
    of_artifact,
    over,
    upload,
    upload_files,
    version_of,
)

pytestmark = pytest.mark.changes

MODEL = "pii-redaction"
WRONG = {"expected.json": b'{"outputs": {"found": {"equals": [7, 7]}}}'}
# Of another signature: nobody is told any more how much was found.
PLAIN = b"def infer(inputs, state):\n    return {'redacted': inputs['text']}\n"
NARROWER = {"handler.py": PLAIN, "expected.json": b'{"outputs": {"redacted": {"shape": [3]}}}'}
REDACTED = [TensorSpec("redacted", "BYTES", (-1,))]
SLOW = """
import time

truth = infer

def infer(inputs, state):
    time.sleep(0.35)
    return truth(inputs, state)
"""
BREAKS_WHERE_IT_SERVES = """
import os

truth, calls = infer, 0

def infer(inputs, state):
    global calls
    calls += 1
    # The first is the warm-up. What tries it before the release finds nothing.
    if calls > 1 and os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "").endswith("-pii-redaction"):
        raise RuntimeError("a bug")
    return truth(inputs, state)
"""


def but(addition: str) -> dict[str, bytes]:
    """The model's handler, and what follows it."""
    return {"handler.py": (ROOT / "models" / MODEL / "handler.py").read_bytes() + addition.encode()}


@pytest.fixture(autouse=True)
def quick(platform: Platform) -> Iterator[None]:
    with settings(platform, MODEL, canary_percent=50, bake_seconds=2, minimum_requests=10):
        yield


@pytest.fixture(scope="module")
def heard(platform: Platform) -> Iterator[Heard]:
    """What happens to uploads, what the platform tells of releases, and whom it notifies."""
    pattern = {"source": ["aws.s3", "inference.platform"]}
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:{NAMES.resource('alarms')}"
    with hearing(platform, "hears-publishing", pattern, topic) as found:
        yield found


def told(heard: Heard, version: str) -> list[str]:
    """What the bus was told of a version's releases, and whether somebody was notified of their ends."""
    events = [one for one in heard.events("inference.platform") if one["detail"]["version"] == version]
    notified = [str(one.get("Message")).partition("\n")[0] for one in heard.messages() if "Message" in one]
    for event in events[1:]:
        assert f"{event['detail-type']}: {MODEL} {version}" in notified
    return [str(one["detail-type"]) for one in events]


def listed(platform: Platform, version: str) -> list[str]:
    """How the command line says that the version's releases ended, the latest first."""
    done = platform.inferctl("--json", "releases", MODEL)
    assert done.returncode == 0, done.stderr
    return [one["status"] for one in json.loads(done.stdout)["releases"] if one["version"] == version]


def is_stored(platform: Platform, sha256: str) -> bool:
    found = platform.aws("s3").list_objects_v2(Bucket=MODELS, Prefix=f"{MODEL}/{sha256}/")
    return "Contents" in found


def hear(platform: Platform, event: dict[str, Any]) -> None:
    """Give the function that starts releases an event, as EventBridge does."""
    [name] = [
        function["FunctionName"]
        for page in platform.aws("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
        if function["FunctionName"].startswith("inference-local-releases-Intake")
    ]
    answer = platform.aws("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    assert "FunctionError" not in answer, answer["Payload"].read()


def test_an_upload_goes_live_once_however_often_and_in_whatever_order_it_is_told_of(
    platform: Platform, tmp_path: Path, heard: Heard
) -> None:
    first, callers = live(platform, MODEL), Callers(platform, MODEL)
    half = version_of(MODEL, tmp_path / "half", "1.0.9", {"notes.txt": b"half"})
    upload_files(platform, half, incoming(half))
    good = version_of(MODEL, tmp_path / "good", "1.1.0", {"notes.txt": b"good"})
    with callers.calling():
        upload(platform, good, who="pipeline", why="a%20test")
        release = over(platform, MODEL, good.manifest.sha256)
    assert release.status == "LIVE", release.reason
    assert (release.version, release.source, release.previous) == ("1.1.0", "upload", first)
    assert (release.who, release.why) == ("pipeline", "a test")
    assert serving(platform, MODEL) == live(platform, MODEL) == good.manifest.sha256
    assert (callers.failures, callers.versions.keys() >= {"1.1.0"}) == ([], True)

    about = [one for one in heard.events("aws.s3") if incoming(good) in one["detail"]["object"]["key"]]
    assert len(about) == len(good.manifest.files) + 1
    for event in [*reversed(about), *about]:
        hear(platform, event)
    assert listed(platform, "1.1.0") == ["LIVE"]
    assert told(heard, "1.1.0") == ["Release started", "Release succeeded"]

    # What came without its manifest was never looked at, and nobody can make it serve.
    event = json.loads(json.dumps(about[-1]).replace(incoming(good), incoming(half)))
    hear(platform, event)
    assert (listed(platform, "1.0.9"), is_stored(platform, half.manifest.sha256)) == ([], False)
    tried = ended(platform, MODEL, start(platform, MODEL, "1.0.9", half.manifest.sha256))
    assert tried.status == "REFUSED"
    assert serving(platform, MODEL) == live(platform, MODEL) == good.manifest.sha256


@dataclass(frozen=True)
class Bad:
    """A version that is refused: what it is made of, what is uploaded in place of that, and what is said."""

    said: str
    files: dict[str, bytes] = field(default_factory=dict)
    damage: dict[str, bytes] = field(default_factory=dict)
    outputs: list[TensorSpec] | None = None


BAD = {
    "bytes that its manifest does not say": Bad(
        "notes.txt: SHA-256 is ", {"notes.txt": b"this"}, damage={"notes.txt": b"that"}
    ),
    "a signature without an output": Bad("output 'found' is gone", NARROWER, outputs=REDACTED),
    "too slow": Bad(" ms in the median; 300 are promised", but(SLOW)),
    "a pickle": Bad("state.bin: pickles run code when they are read", {"state.bin": b"\x80\x04N."}),
    "wrong answers": Bad("the golden request is not answered", WRONG),
}


@pytest.mark.parametrize("case", BAD)
def test_a_version_that_is_not_as_it_must_be_is_refused_and_another_upload_tried_again(
    platform: Platform, tmp_path: Path, heard: Heard, case: str
) -> None:
    bad, before = BAD[case], live(platform, MODEL)
    version = f"1.2.{list(BAD).index(case)}"
    made = version_of(MODEL, tmp_path / "bad", version, bad.files, outputs=bad.outputs)
    for name, content in bad.damage.items():
        (made.folder / name).write_bytes(content)
    upload(platform, made)
    release = over(platform, MODEL, made.manifest.sha256)
    assert release.status == "REFUSED"
    assert bad.said in release.reason
    assert not is_stored(platform, made.manifest.sha256)
    assert told(heard, version) == ["Release started", "Release refused"]
    if case == "wrong answers":
        upload(platform, made)
        assert over(platform, MODEL, made.manifest.sha256, count=2).status == "REFUSED"
        assert listed(platform, version) == ["REFUSED", "REFUSED"]
    assert serving(platform, MODEL) == live(platform, MODEL) == before


def test_another_signature_goes_live_when_its_uploader_says_that_it_breaks_clients(
    platform: Platform, tmp_path: Path
) -> None:
    before = live(platform, MODEL)
    other = version_of(MODEL, tmp_path / "other", "2.0.0", NARROWER, outputs=REDACTED)
    upload(platform, other, breaking="true")
    assert over(platform, MODEL, other.manifest.sha256).status == "LIVE"
    assert serving(platform, MODEL) == live(platform, MODEL) == other.manifest.sha256
    # The version before takes what it took: going back asks nobody.
    assert platform.inferctl("rollback", MODEL).returncode == 0
    assert listed(platform, "2.0.0") == ["LIVE"]
    assert serving(platform, MODEL) == live(platform, MODEL) == before


def test_a_version_is_never_other_bytes_and_the_command_follows_a_refusal_to_its_end(
    platform: Platform, tmp_path: Path
) -> None:
    """What only the release knows: the command could not tell that a file would change under it."""
    before = live(platform, MODEL)
    other = version_of(MODEL, tmp_path / "other", "1.0.0", {"words.txt": b"other bytes"})
    said = platform.inferctl("publish", MODEL, str(other.folder))
    assert said.returncode == 2
    assert "version 1.0.0 is" in said.stderr
    upload(platform, other)
    release = over(platform, MODEL, other.manifest.sha256)
    assert release.status == "REFUSED"
    assert "and never changes" in release.reason
    broken = version_of(MODEL, tmp_path / "broken", "1.9.1", WRONG)
    said = platform.inferctl("publish", MODEL, str(broken.folder), "--why", "a test", "--json")
    assert said.returncode == 1
    assert "REFUSED. the golden request is not answered" in json.loads(said.stderr.splitlines()[-1])["error"]
    assert serving(platform, MODEL) == live(platform, MODEL) == before


@pytest.fixture(scope="module")
def register(platform: Platform) -> Iterator[Callable[[str], str]]:
    """Registers a package, approves it twice, and returns its ARN."""
    sagemaker, group = platform.aws("sagemaker"), f"inference-local-{MODEL}"
    sagemaker.create_model_package_group(ModelPackageGroupName=group)
    packages: list[str] = []

    def registered(folder: str) -> str:
        source = {"S3Uri": folder, "S3DataType": "S3Prefix", "CompressionType": "None"}
        specification = {"Containers": [{"Image": "any", "ModelDataSource": {"S3DataSource": source}}]}
        package: str = sagemaker.create_model_package(
            ModelPackageGroupName=group, InferenceSpecification=specification
        )["ModelPackageArn"]
        packages.append(package)
        for _ in range(2):
            sagemaker.update_model_package(
                ModelPackageArn=package, ModelApprovalStatus="Approved", ApprovalDescription="looks good"
            )
        return package

    yield registered
    for package in packages:
        sagemaker.delete_model_package(ModelPackageName=package)
    sagemaker.delete_model_package_group(ModelPackageGroupName=group)


def stage(platform: Platform, package: str) -> tuple[str, str]:
    """How a package is said to have fared, once it is, and why; its approval stays."""

    def described() -> Any:
        found = platform.aws("sagemaker").describe_model_package(ModelPackageName=package)
        return found if "ModelLifeCycle" in found else None

    found = until(described, timeout=120)
    assert found["ModelApprovalStatus"] == "Approved"
    assert found["ModelLifeCycle"]["Stage"] == "local"
    return found["ModelLifeCycle"]["StageStatus"], found["ModelLifeCycle"]["StageDescription"]


def test_an_approved_package_is_told_how_its_release_ended(
    platform: Platform, tmp_path: Path, heard: Heard, register: Callable[[str], str]
) -> None:
    before = live(platform, MODEL)
    wrong = version_of(MODEL, tmp_path / "wrong", "1.3.0", WRONG)
    refused = register(upload(platform, wrong, f"registry/{MODEL}/1.3.0/"))
    elsewhere = register("s3://elsewhere/model/")
    good = version_of(MODEL, tmp_path / "good", "1.3.1", {"notes.txt": b"registered"})
    released = register(upload(platform, good, f"registry/{MODEL}/1.3.1/"))

    status, reason = stage(platform, refused)
    assert (status, "golden request" in reason) == ("Refused", True)
    status, reason = stage(platform, elsewhere)
    assert (status, "is no place for artifacts" in reason) == ("Refused", True)
    assert stage(platform, released)[0] == "Released"
    [release] = of_artifact(platform, MODEL, good.manifest.sha256)
    assert (release.status, release.source, release.why) == ("LIVE", "registry", "looks good")
    assert release.who.endswith(":root")
    assert release.previous == before
    assert serving(platform, MODEL) == live(platform, MODEL) == good.manifest.sha256

    fails = version_of(MODEL, tmp_path / "fails", "1.3.2", but(BREAKS_WHERE_IT_SERVES))
    callers = Callers(platform, MODEL)
    with settings(platform, MODEL, canary_percent=20, bake_seconds=60), callers.calling():
        status, reason = stage(platform, register(upload(platform, fails, f"registry/{MODEL}/1.3.2/")))
    assert (status, "requests failed" in reason) == ("RolledBack", True)
    # A share of a fifth, with what chance may add.
    assert 0 < len(callers.failures) < 0.4 * callers.calls
    assert told(heard, "1.3.2") == ["Release started", "Release rolled back"]
    assert listed(platform, "1.3.2") == ["ROLLED_BACK"]
    assert serving(platform, MODEL) == live(platform, MODEL) == good.manifest.sha256


def test_a_poisoned_event_is_a_dead_letter_that_rings_and_the_next_upload_goes_on(
    platform: Platform, tmp_path: Path
) -> None:
    poison = uuid.uuid4().hex
    entry = {
        "Source": "inference.platform",
        "DetailType": "Release succeeded",
        "Detail": json.dumps({"environment": "local", "source": "registry", "poison": poison}),
    }
    assert platform.aws("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
    wrong = version_of(MODEL, tmp_path / "wrong", "1.4.0", WRONG)
    upload(platform, wrong)
    assert over(platform, MODEL, wrong.manifest.sha256).status == "REFUSED"

    sqs, cloudwatch = platform.aws("sqs"), platform.aws("cloudwatch")
    letters = sqs.get_queue_url(QueueName=NAMES.resource("dead-letters"))["QueueUrl"]

    def rings() -> bool:
        [alarm] = cloudwatch.describe_alarms(AlarmNames=[NAMES.resource("dead-letters")])["MetricAlarms"]
        assert alarm["AlarmActions"]
        return bool(alarm["StateValue"] == "ALARM")

    until(rings, timeout=120)
    [letter] = sqs.receive_message(QueueUrl=letters, MaxNumberOfMessages=10)["Messages"]
    assert poison in letter["Body"]
    sqs.delete_message(QueueUrl=letters, ReceiptHandle=letter["ReceiptHandle"])
