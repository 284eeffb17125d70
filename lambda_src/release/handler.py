"""The steps of a release, one for each state of the state machine `inference-<env>-release`.

An event is {"step", "release", "execution", "queued_at"}; the answer is the release, as the next step gets
it. Every step may run again: a worker that dies in the middle of one is replaced, and does it over.

What a release is started with:

    model, version, sha256   which artifact; it is, or will be, at s3://<models>/<model>/<sha256>/
    source                   upload, registry, rollback or cli; a rollback goes back at once, unjudged
    who, why                 for the history

Environment: TABLE, MODELS_PATH (`/inference/dev/models`), MODELS_BUCKET, TOPIC, ENVIRONMENT,
METRICS_NAMESPACE, API_URL, and SECRET_ID where a client may ask models through the API.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import announce
import asking
import boto3
import deployments
import embedded_metrics
import history
import judging
from on_lambda import OnLambda
from on_sagemaker import OnComponent, OnEndpoint
from outcomes import Late, NotYet, Refused, Rejected, Unverified
from settings import Settings, live_sha256, make_live

Release = dict[str, Any]

ROLLBACK = "rollback"
VERIFY_SECONDS = 120
BEFORE_ANY_CHANGE = ("Refused",)
BY_JUDGEMENT = ("Rejected", "Unverified")


def handler(event: dict[str, Any], context: object) -> Release:
    """Do one step; `pause` in the answer are the seconds after which it is to be done again, 0 if it is done.

    Raises:
        Refused, Rejected, Unverified: what the step decided.
        Late: it has waited for too long.
    """
    release: Release = event["release"]
    name = event["step"]
    release |= {
        "execution": event["execution"],
        "entry": history.entry_of(release["version"], event["queued_at"]),
        "pause": 0,
    }
    began = release.setdefault("began", {}).setdefault(name, _now())
    step = STEPS[name]
    try:
        step.do(release)
    except NotYet as error:
        waited = _seconds_since(began)
        if waited > step.longest_seconds:
            raise Late(f"{name} waited for {waited:.0f} s: {error}") from error
        # Often at first, and seldom where it takes long.
        release["pause"] = round(max(1, min(step.longest_pause, waited / 10)))
    return release


def lock(release: Release) -> None:
    """Wait for this model's turn; then what serves is what is said to be live, or is made so."""
    model, entry = release["model"], release["entry"]
    settings = Settings.of(model)
    release.setdefault("source", "cli")
    told = {name: release.get(name) or "" for name in ("version", "sha256", "source", "who", "why")}
    if not history.known(model, entry):
        history.note(
            model, entry, **told, status=history.WAITING, target=settings.home,
            started=_now(), execution=release["execution"],
        )  # fmt: skip
    abandoned = history.take_turn(model, entry, release["execution"])
    if abandoned:
        history.note(
            model, abandoned["abandoned"], status="FAILED", ended=_now(), reason="Its execution was ended"
        )
    deployments.keep_out(settings)
    sha256 = live_sha256(model)
    if sha256 is None:
        raise Refused(f"{model} has no live version yet: deploy it first")
    _target(settings).restore(sha256, _uri(model, sha256))
    release |= {"previous": sha256, "validator": settings.validator}
    history.note(model, entry, status="VALIDATING", previous=sha256)
    announce.publish(announce.STARTED, release)


def stage(release: Release) -> None:
    """Make the version, beside the one that serves."""
    model, sha256 = release["model"], release["sha256"]
    if sha256 == release["previous"]:
        raise Refused(f"{release['version']} ({sha256[:12]}) is live already")
    _require_artifact(model, sha256)
    history.note(model, release["entry"], status="STAGING")
    release["staged"] = _target(Settings.of(model)).stage(sha256, _uri(model, sha256))


def shift(release: Release) -> None:
    """Give it its first share of the requests."""
    settings = Settings.of(release["model"])
    history.note(release["model"], release["entry"], status="SHIFTING")
    percent = 0 if release.get("source") == ROLLBACK else settings.canary_percent
    _target(settings).shift(release["staged"], percent)
    release["shifted"] = _now()


def judge(release: Release) -> None:
    """Watch it for as long as configured. Raises Rejected as soon as it does worse than it may.

    SageMaker ends an update for no call, only for an alarm: a version that is rejected rings one until then.
    """
    model, settings = release["model"], Settings.of(release["model"])
    target = _target(settings)
    settled = target.settled(release["staged"])
    if release.get("source") == ROLLBACK:
        if not settled:
            raise NotYet("it is being brought back")
        return
    if not release.get("rejected"):
        release["measured"], release["rejected"] = judging.judge(settings, release)
        history.note(model, release["entry"], status="JUDGING", metrics=release["measured"])
    if release["rejected"]:
        if settled:
            raise Rejected(release["rejected"])
        embedded_metrics.publish({"ReleaseRejected": (1, "Count")}, Model=model)
        raise NotYet(f"SageMaker is to take it back: {release['rejected']}")
    if not (settled and _seconds_since(release["shifted"]) >= settings.bake_seconds):
        raise NotYet("it is being watched")


def promote(release: Release) -> None:
    """Give it all requests."""
    _target(Settings.of(release["model"])).promote(release["staged"])
    release["promoted"] = _now()


def verify(release: Release) -> None:
    """Ask what answers which artifact it runs, until all of it says the new one. Raises Unverified."""
    settings = Settings.of(release["model"])
    history.note(release["model"], release["entry"], status="VERIFYING")
    try:
        asking.expect(settings, release["sha256"], answers=_target(settings).capacity())
    except NotYet as error:
        if _seconds_since(release["promoted"]) > VERIFY_SECONDS:
            raise Unverified(f"two minutes after all requests go to it, {error}") from error
        raise


def record(release: Release) -> None:
    """Say that it is live."""
    make_live(release["model"], release["sha256"])


def restore(release: Release) -> None:
    """Bring back what is live, whatever the release has done so far."""
    model = release["model"]
    live = str(live_sha256(model))
    settings = Settings.of(model)
    target = _target(settings)
    target.restore(live, _uri(model, live))
    asking.expect(settings, live, answers=target.capacity())


def conclude(release: Release) -> None:
    """Write down how it ended, clean up, tell, and let the next release of the model begin."""
    model = release["model"]
    status, reason = _outcome(release)
    release |= {"status": status, "reason": release.get("rejected") or reason}
    reason = release["reason"]
    if history.holds(model, release["execution"]):
        live = live_sha256(model)
        if live is not None:
            settings = Settings.of(model)
            # What was taken back may still be answering: it goes with the next release.
            kept = [*history.last_live(model), release["sha256"]]
            _target(settings).finish(live, _uri(model, live), kept)
            deployments.let_in(settings)
    if not history.ended(model, release["entry"]):
        # Told before it is noted: rather twice than never.
        announce.end(status, release)
        history.note(model, release["entry"], status=status, reason=reason, ended=_now())
    history.let_go(model, release["execution"])


@dataclass(frozen=True)
class Step:
    """A step, for how many seconds at most it is waited for, and with what pauses between two questions. An
    execution has 25,000 events, nine for each question.
    """

    do: Callable[[Release], None]
    longest_seconds: float
    longest_pause: int = 15


HOUR = 3600
STEPS = {
    "lock": Step(lock, 24 * HOUR, longest_pause=60),
    "stage": Step(stage, HOUR),
    "shift": Step(shift, HOUR),
    # SageMaker starts instances, bakes twice and drains; its own limit may be eight hours.
    "judge": Step(judge, 8 * HOUR, longest_pause=60),
    "promote": Step(promote, HOUR),
    "verify": Step(verify, HOUR),
    "record": Step(record, HOUR),
    "restore": Step(restore, 3 * HOUR, longest_pause=60),
    "conclude": Step(conclude, HOUR),
}


def _outcome(release: Release) -> tuple[str, str]:
    """How a release ended, and why if not well."""
    error = release.get("error")
    reason = announce.said(error) if error else ""
    if "restore_error" in release:
        said = announce.said(release["restore_error"])
        return "FAILED", f"{reason}; and what was live could not be restored: {said}"
    if not error:
        return "LIVE", ""
    if error["Error"] in BEFORE_ANY_CHANGE:
        return "REFUSED", reason
    return ("ROLLED_BACK" if error["Error"] in BY_JUDGEMENT else "FAILED"), reason


def _target(settings: Settings) -> OnLambda | OnEndpoint | OnComponent:
    if settings.home == "cpu":
        return OnLambda(settings)
    return OnEndpoint(settings) if settings.home == "gpu" else OnComponent(settings)


def _uri(model: str, sha256: str) -> str:
    return f"s3://{os.environ['MODELS_BUCKET']}/{model}/{sha256}/"


def _require_artifact(model: str, sha256: str) -> None:
    """Where the manifest is, everything is: it is written last."""
    bucket, key = os.environ["MODELS_BUCKET"], f"{model}/{sha256}/manifest.json"
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    if not found.get("Contents"):
        raise Refused(f"there is no artifact s3://{bucket}/{key}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
