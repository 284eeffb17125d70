"""What `models/<name>/model.yaml` says. A model is a `CpuModel` or a `GpuModel`; `target` tells which."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from catalog.instances import GPU_FAMILIES, gpus, is_gpu, unknown
from catalog.names import FROM_ZERO, UPLOADS
from catalog.section import Items, Name, Section, refusal, refuse

MAX_INLINE_BYTES = 4 * 1024 * 1024

ALARM_MINUTES, CAPTURE_MINUTES = 3, 2
"""Until CloudWatch has noticed that a release rejects its version, and SageMaker with it; and until what was
answered is among SageMaker's captures.
"""

COPY_MEMORY_MB, COPY_GPUS = 1024, 1
"""What a copy of a model that sleeps reserves of its instance where nothing else is said."""


class Artifact(Section):
    """Where the model's files come from."""

    source: Annotated[
        str,
        Field(
            pattern=r"^(local|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^\s?#]+/)?)$",
            description="`local`: built by `models/<name>/build.py` and uploaded by the deployment. "
            "`s3://bucket/prefix/` (with the final slash): an artifact folder that is already in S3, "
            "for weights too large to travel with a deployment.",
        ),
    ] = "local"
    sha256: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the artifact's `manifest.json`, 64 lower-case hex digits. Required with "
            "an `s3://` source, where it decides what may be served; refused with `local`, where it is "
            "computed.",
        ),
    ] = None

    pickles: Annotated[
        bool,
        Field(
            description="Whether versions may hold pickles (.pkl, .joblib, .pt, arrays of Python objects), "
            "which run code when they are read. A handler that unpickles needs it; ONNX does not."
        ),
    ] = False

    @field_validator("sha256")
    @classmethod
    def _belongs_to_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source")
        if source == "local" and value is not None:
            refuse(refusal(value, "must be left out when artifact.source is 'local': it is computed"))
        if source is not None and source != "local" and value is None:
            refuse(refusal(value, "is required when artifact.source is an s3:// address"))
        return value


class Cpu(Section):
    """The Lambda function of a CPU model."""

    memory_mb: Annotated[
        int,
        Field(
            ge=128,
            le=10240,
            description="Memory of the function in MB. CPU grows with it; 1769 MB is one full vCPU.",
        ),
    ] = 1769
    timeout_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=29,
            description="Seconds a request may take. API Gateway gives up after 29.",
        ),
    ] = 29
    ephemeral_storage_mb: Annotated[
        int,
        Field(
            ge=512,
            le=10240,
            description="Size of /tmp in MB, where the artifact is cached: more than the artifact's size.",
        ),
    ] = 512
    reserved_concurrency: Annotated[
        int | None,
        Field(
            ge=1,
            description="Requests served at once at most, set aside from the account's Lambda concurrency. "
            "Left out: no cap of its own.",
        ),
    ] = None


class Gpu(Section):
    """The SageMaker endpoint of a GPU model."""

    instance_type: Annotated[
        str,
        Field(
            pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$",
            description="SageMaker GPU instance type, as `ml.g5.xlarge`. Families: "
            + ", ".join(GPU_FAMILIES)
            + ".",
        ),
    ]
    container: Annotated[
        Name,
        Field(description="The image that serves the model: a folder of `inference_containers/`."),
    ] = "onnx"
    startup_timeout_seconds: Annotated[
        int,
        Field(
            ge=60,
            le=3600,
            description="Seconds an instance has to load the model and answer its health check.",
        ),
    ] = 600
    volume_gb: Annotated[
        int | None,
        Field(
            ge=1,
            le=512,
            description="Size in GB of the instance's storage volume. Left out: SageMaker's default for the "
            "type; families with local NVMe bring their own disk.",
        ),
    ] = None
    copy_memory_mb: Annotated[
        int | None,
        Field(
            ge=128,
            description="With `scaling.min: 0` only: the MB of an instance's memory that a copy of the model "
            "reserves. It places copies, and does not limit them. Far less than an instance has can be "
            "reserved (1024 of `ml.g5.xlarge`, but not 4096): raise it where several copies share one. Left "
            f"out: {COPY_MEMORY_MB}.",
        ),
    ] = None
    copy_gpus: Annotated[
        int | None,
        Field(
            ge=1,
            description="With `scaling.min: 0` only: the GPUs of an instance that a copy of the model has to "
            f"itself; at most those of `instance_type`. Left out: {COPY_GPUS}.",
        ),
    ] = None

    @field_validator("instance_type")
    @classmethod
    def _has_a_gpu(cls, value: str) -> str:
        if not is_gpu(value):
            refuse(refusal(value, f"must be of a GPU family ({', '.join(GPU_FAMILIES)}), or use target: cpu"))
        reason = unknown(value)
        if reason is not None:
            refuse(refusal(value, reason))
        return value


class Scaling(Section):
    """How many instances a GPU model runs on."""

    min: Annotated[
        int,
        Field(
            ge=0,
            description="Instances that always run. Two or more survive the loss of a zone. 0: the model "
            "sleeps after a quarter of an hour without requests, and its last instance, with its cost, goes "
            "some minutes later. A request wakes it; for the ten minutes or so that this takes, answers are "
            "503 with `Retry-After`. What is said here of instances is then true of the model's copies.",
        ),
    ] = 1
    max: Annotated[
        int,
        Field(ge=1, description="Instances at most; not below `min`."),
    ] = 2
    target_concurrency: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Requests in flight or queued per instance that scaling aims for. Measure the model: "
            "the highest number at which its latency objective still holds.",
        ),
    ] = 4
    scale_in_cooldown_seconds: Annotated[
        int,
        Field(ge=0, le=3600, description="Seconds to wait after removing instances before removing more."),
    ] = 600
    scale_out_cooldown_seconds: Annotated[
        int,
        Field(ge=0, le=3600, description="Seconds to wait after adding instances before adding more."),
    ] = 300

    @field_validator("max")
    @classmethod
    def _not_below_min(cls, value: int, info: ValidationInfo) -> int:
        minimum = info.data.get("min", 1)
        if value < minimum:
            refuse(refusal(value, f"must be >= scaling.min ({minimum})"))
        return value


class Release(Section):
    """How traffic moves to a new version, while the model's alarms can turn it back."""

    validate_memory_mb: Annotated[
        int | None,
        Field(
            ge=512,
            le=10240,
            description="Memory in MB of the function that tries a new version, on a CPU, before it is "
            "released. Left out: `cpu.memory_mb`, so that it is timed as it will run, or 3008 with "
            "`target: gpu`; more than 3008 has to be asked for in new accounts.",
        ),
    ] = None
    canary_percent: Annotated[
        int,
        Field(
            ge=0,
            le=50,
            description="Share of the traffic, in percent, that the new version gets first. 0: all of it at "
            "once, and a rollback then undoes it for all.",
        ),
    ] = 0
    bake_minutes: Annotated[
        float,
        Field(
            ge=0.05,
            le=60,
            description="Minutes for which the new version is watched after each shift of traffic; if it "
            "does worse than it may, the old version comes back. With `target: gpu` at least 3, which "
            "CloudWatch needs to notice, and 5 where predictions are compared too: captures are late.",
        ),
    ] = 5
    minimum_requests: Annotated[
        int,
        Field(
            ge=10,
            le=100_000,
            description="Requests that each version must have answered for errors, latency and predictions "
            "to be compared. With fewer, only the alarms decide.",
        ),
    ] = 50
    prediction_shift: Annotated[
        float | None,
        Field(
            ge=0.01,
            le=10,
            description="The largest shift of the predictions between the old and the new version, as the "
            "population stability index of an output (0.1 is little, 0.25 much). Looks at captures "
            "(`capture.percent`). `null`: not looked at, for versions that are meant to answer differently.",
        ),
    ] = 0.25

    def bake_seconds(self, instead: float | None = None) -> int:
        """`bake_minutes`, or other minutes instead."""
        return round(60 * (instead or self.bake_minutes))


class Limits(Section):
    """What a client may send."""

    inline_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=MAX_INLINE_BYTES,
            description="Largest request body in bytes; larger ones are answered 413. At most 4194304 "
            "(4 MiB): Lambda takes 6 MB, base64 makes a body a third larger, "
            "and both targets have one limit.",
        ),
    ] = MAX_INLINE_BYTES


class Access(Section):
    """Who may call the model."""

    scope: Annotated[
        Literal["shared", "own"],
        Field(
            description="What a token must allow. `shared`: the scope `invoke`, with which a client calls "
            "every such model. `own`: `invoke.<model>`, which opens this model only, and which `invoke` does "
            "not replace; clients list it under `scopes` in `config/<env>.yaml`."
        ),
    ] = "shared"


class Slo(Section):
    """What the model's callers are promised; alarms watch it."""

    availability_percent: Annotated[
        float,
        Field(
            ge=90, lt=100, description="Share of requests, in percent, that must not fail with a 5xx status."
        ),
    ] = 99.9
    p99_ms: Annotated[
        int,
        Field(ge=1, le=29000, description="Milliseconds in which 99 of 100 requests must be answered."),
    ] = 1000
    p50_ms: Annotated[
        int | None,
        Field(
            ge=1,
            le=29000,
            description="Milliseconds in which a new version must answer its golden request, in the median, "
            "to be released. With `target: cpu` only, where it is tried on what will serve it. Left out: "
            "`p99_ms`.",
        ),
    ] = None


class Capture(Section):
    """Which requests and answers are kept in the data bucket, for drift, audits and replays."""

    percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Share of the answered inference requests that is kept, in percent, each with its "
            "answer. 0: none.",
        ),
    ] = 0
    keep: Annotated[
        Literal["both", "requests", "answers"],
        Field(
            description="Which side of a captured exchange is kept. Where requests hold what may not be "
            "stored, `answers` alone still show drift of the predictions."
        ),
    ] = "both"
    redact: Annotated[
        Items[str],
        Field(
            description="Names of input and output tensors whose values are never written; their shapes "
            "are. With `target: cpu` only: on GPU models SageMaker writes each side whole, and `keep` leaves "
            "one out."
        ),
    ] = ()

    @field_validator("redact")
    @classmethod
    def _are_tensor_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = "must be a tensor's name: letters, digits and . _ - /, at most 128"
        refuse(
            *(
                refusal(name, wrong, i)
                for i, name in enumerate(value)
                if not re.fullmatch(r"[A-Za-z0-9._/-]{1,128}", name)
            )
        )
        return value


class Drift(Section):
    """How captures are compared with what the version's traffic was when it was new."""

    enabled: Annotated[
        bool,
        Field(description="Whether captures are compared. Without `capture.percent` there are none."),
    ] = True
    every_hours: Annotated[
        Literal[1, 2, 4, 6, 8, 12, 24],
        Field(description="Hours from one comparison to the next, and those that each looks back on."),
    ] = 24
    baseline_samples: Annotated[
        int,
        Field(
            ge=100,
            le=10_000,
            description="Rows of a version's first captured requests that become its baseline; until there "
            "are as many nothing is compared. An artifact with a `baseline.jsonl` brings its own.",
        ),
    ] = 1000
    min_samples: Annotated[
        int,
        Field(ge=50, le=10_000, description="Rows without which a window is not judged."),
    ] = 200
    max_samples: Annotated[
        int,
        Field(ge=100, le=20_000, description="Rows of a window that are looked at, drawn at random from it."),
    ] = 5000
    false_alarm_percent: Annotated[
        float,
        Field(
            ge=0.01,
            le=10,
            description="The chance, in percent, that a comparison finds drift where nothing has changed: "
            "over all features together, not for each.",
        ),
    ] = 1.0
    psi: Annotated[
        float,
        Field(
            ge=0.05,
            le=5,
            description="Population stability index from which on a change that is no chance counts. 0.1 is "
            "usually called small, 0.2 large.",
        ),
    ] = 0.2
    categorical: Annotated[
        Items[str],
        Field(
            description="Tensors whose values are names of categories, though they are numbers or of many "
            "kinds; or one column of a tensor, as `measurements[3]`."
        ),
    ] = ()
    ignore: Annotated[
        Items[str],
        Field(description="Tensors and features that are not compared, as the report names them."),
    ] = ()
    truth_hours: Annotated[
        int,
        Field(
            ge=1,
            le=24 * 31,
            description="Hours back from a comparison in which ground truth is looked for, and the requests "
            "that it is about.",
        ),
    ] = 168
    min_accuracy_percent: Annotated[
        float | None,
        Field(
            ge=1,
            le=100,
            description="Share of the rows with ground truth, in percent, that must be right. A share that "
            "is surely below counts as drift. Left out: accuracy is measured, and alarms nobody.",
        ),
    ] = None

    @field_validator("max_samples")
    @classmethod
    def _not_below_min(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_samples", 0)
        if value < least:
            refuse(refusal(value, f"must be >= drift.min_samples ({least})"))
        return value


class _Model(Section):
    name: Annotated[
        Name,
        Field(
            description="The model's name: its folder, its place in the URL (`/v2/models/<name>`), and the "
            "end of its AWS names. 3 to 32 lower-case letters, digits and hyphens; a letter first, no hyphen "
            "last."
        ),
    ]
    description: Annotated[
        str,
        Field(min_length=1, max_length=256, description="One sentence: what goes in, what comes out."),
    ]
    owner: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,127}$",
            description="The team that answers for the model; becomes the tag `inference:owner`. Up to 128 "
            "letters, digits, spaces and . _ @ + -",
        ),
    ]
    registry: Annotated[
        str | None,
        Field(
            pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
            description="The SageMaker model package group whose approved packages are released as this "
            "model. Left out: `inference-<env>-<model>`.",
        ),
    ] = None
    version: Annotated[
        str,
        Field(
            pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
            r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$",
            max_length=64,
            description="Semantic version of the artifact, as `1.0.0`; clients see it in answers.",
        ),
    ]
    artifact: Annotated[Artifact, Field(description="Where the model's files come from.")] = Artifact()
    limits: Annotated[Limits, Field(description="What a client may send.")] = Limits()
    access: Annotated[Access, Field(description="Who may call the model.")] = Access()
    slo: Annotated[Slo, Field(description="What callers are promised.")] = Slo()
    capture: Annotated[Capture, Field(description="Which requests and answers are kept.")] = Capture()
    drift: Annotated[Drift, Field(description="How captures are compared with the baseline.")] = Drift()
    release: Annotated[Release, Field(description="How traffic moves to a new version.")] = Release()

    @field_validator("name")
    @classmethod
    def _is_no_folder_of_uploads(cls, value: str) -> str:
        if value in UPLOADS:
            refuse(refusal(value, "is the folder of the models bucket that uploads come to: choose another"))
        return value

    @property
    def shows_predictions(self) -> bool:
        """Whether a release compares the predictions of its version with those of the old one."""
        answers = self.capture.percent and self.capture.keep != "requests"
        return bool(answers and self.release.prediction_shift is not None)

    @property
    def watched(self) -> bool:
        """Whether its captures are compared with a baseline."""
        return bool(self.drift.enabled and self.capture.percent)


class CpuModel(_Model):
    """A model that runs in a Lambda function."""

    misplaced = {
        "gpu": "is for target: gpu only, and this model's target is cpu: remove it, or change the target",
        "scaling": "is for target: gpu only: Lambda scales by itself, and cpu.reserved_concurrency caps it",
    }

    target: Annotated[Literal["cpu"], Field(description="`cpu`: a Lambda function runs the model.")]
    cpu: Annotated[Cpu, Field(description="The Lambda function.")] = Cpu()

    sleeps: ClassVar[bool] = False
    home: ClassVar[str] = "cpu"
    """Where it runs: each kind of home has a stack of its own (`catalog.names.on_target`)."""


class GpuModel(_Model):
    """A model that runs on a SageMaker endpoint."""

    misplaced = {
        "cpu": "is for target: cpu only, and this model's target is gpu: remove it, or change the target",
    }

    target: Annotated[Literal["gpu"], Field(description="`gpu`: a SageMaker endpoint runs the model.")]
    gpu: Annotated[Gpu, Field(description="The SageMaker endpoint.")]
    scaling: Annotated[Scaling, Field(description="How many instances the endpoint has.")] = Scaling()

    @property
    def sleeps(self) -> bool:
        """Whether it scales to zero: an inference component then, else an endpoint's own model."""
        return self.scaling.min == 0

    @property
    def home(self) -> str:
        """Where it runs: each kind of home has a stack of its own (`catalog.names.on_target`)."""
        return FROM_ZERO if self.sleeps else "gpu"

    @model_validator(mode="after")
    def _only_components_have_copies(self) -> "GpuModel":
        given = {name: getattr(self.gpu, name) for name in ("copy_memory_mb", "copy_gpus")}
        if not self.sleeps:
            only = "is for scaling.min: 0 only: otherwise the model has its instances to itself"
            refuse(*(refusal(value, only, "gpu", name) for name, value in given.items() if value is not None))
        there = gpus(self.gpu.instance_type)
        if (self.gpu.copy_gpus or COPY_GPUS) > there:
            reason = f"must be <= {there}, the GPUs of {self.gpu.instance_type}"
            refuse(refusal(self.gpu.copy_gpus, reason, "gpu", "copy_gpus"))
        if self.sleeps and self.release.canary_percent:
            reason = (
                "must be 0 where scaling.min is 0: the copies of a model that sleeps are replaced one by "
                "one, without a share for a canary. Leave it out, or set scaling.min to 1 or more"
            )
            refuse(refusal(self.release.canary_percent, reason, "release", "canary_percent"))
        return self

    @model_validator(mode="after")
    def _bakes_for_longer_than_judging_takes(self) -> "GpuModel":
        # On Lambda a release takes a version back itself, and captures are written at once.
        compared = self.shows_predictions
        needed = ALARM_MINUTES + (CAPTURE_MINUTES if compared else 0)
        if self.release.bake_minutes < needed:
            late = ", and captures to show what it answered" if compared else ""
            instead = ", or set release.prediction_shift to null" if compared else ""
            reason = (
                f"must be >= {needed}: so long SageMaker's alarms need to take a version back{late}. "
                f"Raise it{instead}"
            )
            refuse(refusal(self.release.bake_minutes, reason, "release", "bake_minutes"))
        return self

    @field_validator("slo")
    @classmethod
    def _is_timed_where_it_runs(cls, value: Slo) -> Slo:
        if value.p50_ms is not None:
            reason = (
                "is for target: cpu only: a new version is tried on a CPU, whose times say nothing of a GPU's"
            )
            refuse(refusal(value.p50_ms, reason, "p50_ms"))
        return value

    @field_validator("capture")
    @classmethod
    def _captures_whole(cls, value: Capture) -> Capture:
        if value.redact:
            reason = (
                "is for target: cpu only: SageMaker captures whole bodies. Say by capture.keep which side "
                "is kept, or set capture.percent to 0"
            )
            refuse(refusal(list(value.redact), reason, "redact"))
        return value


ModelSpec = CpuModel | GpuModel
