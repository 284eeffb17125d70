"""Decides whether an uploaded artifact may be released: the first step of every release of one model.

The package is the serving function's own, so that what is tried here is what will serve. It runs in the
private network with rights to read this model's files, and no others; it changes nothing.

The event is the release, of which it reads model, version, sha256 (the artifact's id), location (where it is:
s3://<bucket>/<prefix>/; unless given, where stored artifacts are), breaking (bool) and previous (the live
artifact's id).

Answer: {"sha256", "version", "opset", "bytes", "p50_ms", "fingerprint"}. The fingerprint is of the S3 objects
that were looked at: whoever stores the artifact can tell whether they have changed since.

Raises Refused, with every reason for people, when the artifact may not be released. Any other error means
that the validator itself failed, and says nothing of the artifact.

Environment:
    MODEL_NAME      the model's name in the catalog
    MODELS_BUCKET   where uploads and artifacts are
    MAX_BYTES       the largest artifact, in bytes
    ANSWER_SECONDS  how long one answer may take, and loading ten times that
    P50_MS          the median in which the golden request must be answered; without it, it is not timed
    PICKLES         "true": the artifact may hold pickles
"""

import ctypes
import hashlib
import json
import logging
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from inference_runtime import admission, expectations, graph_file
from inference_runtime.admission import EXPECTED, MAX_FILES, REQUEST
from inference_runtime.manifest import FILE_NAME, Artifact, ArtifactError, Manifest, parse

MAX_MANIFEST_BYTES = 1 << 20
MAX_ANSWER_BYTES = 64 << 20
LOAD_ANSWERS = 10
"""Loading may take as long as so many answers."""
TIMED, TIMED_SECONDS = 20, 10.0
"""The golden request is asked so often, or for so long, whichever comes first."""
_MISSING = ("404", "NoSuchKey", "NoSuchBucket")
_PR_SET_DUMPABLE = 4
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "PYTHONPATH", "TZ")

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class Refused(Exception):
    """The artifact may not be released; the message has every reason."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    try:
        answer = validate(event)
    except (Refused, ArtifactError) as error:
        logger.info("refused: %s", error)
        raise Refused(str(error)) from error
    logger.info(json.dumps({"validated": answer}))
    return answer


def validate(event: Mapping[str, Any]) -> dict[str, Any]:
    """See the module. Raises Refused or ArtifactError."""
    model, bucket = os.environ["MODEL_NAME"], os.environ["MODELS_BUCKET"]
    if event["model"] != model:
        raise ValueError(f"asked about {event['model']!r}; this is the validator of {model!r}")
    location = event.get("location") or f"s3://{bucket}/{model}/{event['sha256']}/"
    prefix = _prefix(str(location), bucket, model)
    s3 = boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 4}))
    previous = event.get("previous")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact"
        artifact, etags = download(s3, bucket, prefix, event["sha256"], folder)
        _check_identity(artifact.manifest, model, event.get("version"))
        reasons = admission.problems(
            artifact,
            _live(s3, bucket, model, previous) if previous else None,
            breaking=event.get("breaking") is True,
            pickles=os.environ.get("PICKLES") == "true",
        )
        if reasons:
            raise Refused("; ".join(reasons))
        p50_ms = _try(artifact)
        return {
            "sha256": artifact.manifest.sha256,
            "version": artifact.manifest.version,
            "opset": _opset(artifact),
            "bytes": artifact.manifest.size,
            "p50_ms": p50_ms,
            "fingerprint": admission.fingerprint(etags),
        }


def download(s3: Any, bucket: str, prefix: str, sha256: str, folder: Path) -> tuple[Artifact, dict[str, str]]:
    """The artifact, every byte held against its manifest, and the ETag of each object.

    Raises:
        ArtifactError: a file is missing, or not what the manifest says.
        Refused: it is too large.
    """
    content, etag = _small(s3, bucket, f"{prefix}/{FILE_NAME}")
    manifest = parse(content, sha256)
    limit, size = int(os.environ["MAX_BYTES"]), manifest.size
    if size > limit:
        raise Refused(f"the artifact has {size} bytes; {limit} are allowed")
    if len(manifest.files) > MAX_FILES:
        raise Refused(f"the artifact has {len(manifest.files)} files; {MAX_FILES} are allowed")
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(content)
    etags = {FILE_NAME: etag}
    for name, entry in manifest.files.items():
        answer = _get(s3, bucket, f"{prefix}/{name}")
        # Before a byte is read: what is too long would fill the disk.
        if answer["ContentLength"] != entry.size:
            raise ArtifactError(f"{name}: {answer['ContentLength']} bytes, the manifest says {entry.size}")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for part in answer["Body"].iter_chunks(1 << 20):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != entry.sha256:
            raise ArtifactError(f"{name}: SHA-256 is {digest.hexdigest()}, the manifest says {entry.sha256}")
        etags[name] = answer["ETag"]
    return Artifact(folder, manifest), etags


def _prefix(location: str, bucket: str, model: str) -> str:
    key = location.removeprefix(f"s3://{bucket}/").rstrip("/")
    folders = [f"{folder}{model}/" for folder in ("incoming/", "registry/", "")]
    if not location.startswith(f"s3://{bucket}/") or not any(key.startswith(each) for each in folders):
        raise Refused(
            f"{location} is no place for artifacts of {model}: put the folder into "
            f"s3://{bucket}/incoming/{model}/ or, for the Model Registry, s3://{bucket}/registry/{model}/"
        )
    return key


def _check_identity(manifest: Manifest, model: str, version: str | None) -> None:
    if manifest.name != model:
        raise ArtifactError(f"{FILE_NAME}: the artifact is of {manifest.name!r}, not of {model!r}")
    if version is not None and manifest.version != version:
        raise ArtifactError(f"{FILE_NAME}: version is {manifest.version!r}, and was uploaded as {version!r}")


def _live(s3: Any, bucket: str, model: str, sha256: str) -> Manifest:
    """The served version's manifest. What is wrong with it is no fault of the new one: ValueError."""
    content, _ = _small(s3, bucket, f"{model}/{sha256}/{FILE_NAME}")
    try:
        return parse(content, sha256)
    except ArtifactError as error:
        raise ValueError(f"the live version {sha256}: {error}") from error


def _small(s3: Any, bucket: str, key: str) -> tuple[bytes, str]:
    answer = _get(s3, bucket, key)
    if answer["ContentLength"] > MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{key}: {answer['ContentLength']} bytes; {MAX_MANIFEST_BYTES} are allowed")
    return answer["Body"].read(), answer["ETag"]


def _get(s3: Any, bucket: str, key: str) -> Any:
    try:
        return s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            raise ArtifactError(f"s3://{bucket}/{key}: there is no such file") from error
        raise


def _opset(artifact: Artifact) -> int | None:
    name = artifact.manifest.model
    return graph_file.read(artifact.folder / name).opset if name else None


def _try(artifact: Artifact) -> float | None:
    """Ask the golden request, hold the answer against what is expected, and time it.

    Returns:
        The median in milliseconds, or None where the model promises none on this hardware.
    """
    seconds = float(os.environ["ANSWER_SECONDS"])
    request = (artifact.folder / REQUEST).read_text(errors="replace")
    with _running(artifact, seconds) as model:
        started = time.perf_counter()
        wrong = _wrong(artifact, model.ask(request, seconds))
        if wrong:
            raise Refused(f"the golden request is not answered as {EXPECTED} says: {'; '.join(wrong)}")
        promised = os.environ.get("P50_MS")
        if not promised:
            return None
        taken: list[float] = []
        while len(taken) < TIMED and time.perf_counter() - started < TIMED_SECONDS:
            before = time.perf_counter()
            model.ask(request, seconds)
            taken.append((time.perf_counter() - before) * 1000)
    p50_ms = round(statistics.median(taken or [seconds * 1000]), 3)
    if p50_ms > float(promised):
        raise Refused(f"the golden request takes {p50_ms} ms in the median; {promised} are promised")
    return p50_ms


def _wrong(artifact: Artifact, answer: str) -> list[str]:
    try:
        expected = json.loads((artifact.folder / EXPECTED).read_bytes())
        return expectations.check(expected, json.loads(answer))
    except Exception as error:
        # The file is the publisher's, and any shape of it may be wrong.
        return [f"{EXPECTED} cannot be applied: {type(error).__name__}: {error}"]


class _Sandbox:
    """The artifact's process; whatever it does within its time, or does not do, is a reason to refuse."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def ask(self, request: str | None, seconds: float) -> str:
        """The answer to a request, or with None that the model is loaded. Raises Refused."""
        assert self._process.stdin
        assert self._process.stdout
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(self._process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            if request is not None:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline(MAX_ANSWER_BYTES)
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        what = "answer the golden request" if request is not None else "load"
        if late.is_set():
            raise Refused(f"the model does not {what} within {seconds:g} s")
        if not line:
            _kill(self._process)
            status = self._process.wait()
            raise Refused(f"the model's process ended with status {status} when it was to {what}")
        try:
            document = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise Refused(
                f"the model's process says no answer that can be read when it is to {what}"
            ) from None
        for key in ("error", "problem"):
            if key in document:
                raise Refused(f"the model does not {what}: {document[key]}")
        return str(document.get("answer", ""))


@contextmanager
def _running(artifact: Artifact, seconds: float) -> Iterator[_Sandbox]:
    """The artifact's process, loaded. It ends with the block, and all that it started with it."""
    # Linux then keeps our memory and environment, which hold credentials, from processes of the same user.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    scratch = artifact.folder.parent / "tmp"
    scratch.mkdir()
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    command = [sys.executable, *(["-S"] if sys.flags.no_site else [])]
    process = subprocess.Popen(
        [
            *command,
            str(Path(__file__).with_name("sandbox.py")),
            str(artifact.folder),
            artifact.manifest.sha256,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment | {"TMPDIR": str(scratch), "HOME": str(scratch)},
        cwd=scratch,
        start_new_session=True,
    )
    try:
        sandbox = _Sandbox(process)
        sandbox.ask(None, seconds * LOAD_ANSWERS)
        yield sandbox
    finally:
        _kill(process)
        process.wait()
        assert process.stdin
        assert process.stdout
        process.stdout.close()
        # What it did not read is of no use to anybody now.
        with suppress(BrokenPipeError):
            process.stdin.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
