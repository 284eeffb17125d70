"""Hypothesis strategies: any valid model."""

import re
from typing import Any

from hypothesis import strategies as st

from catalog import CpuModel, GpuModel, ModelSpec
from catalog.instances import gpus, hosted, is_gpu
from catalog.model import Access, Artifact, Capture, Cpu, Drift, Gpu, Limits, Release, Scaling, Slo
from catalog.section import NAME_PATTERN


def matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern.strip("^$"), re.ASCII), fullmatch=True)


artifacts = st.just(Artifact()) | st.builds(
    Artifact, source=matching(r"s3://[a-z0-9]{3,20}/([a-z0-9]+/){0,2}"), sha256=matching("[0-9a-f]{64}")
)


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    least = draw(st.just(0) | st.integers(1, 50))
    return Scaling(
        min=least,
        max=draw(st.integers(max(least, 1), 100)),
        target_concurrency=draw(st.integers(1, 1000)),
        scale_in_cooldown_seconds=draw(st.integers(0, 3600)),
        scale_out_cooldown_seconds=draw(st.integers(0, 3600)),
    )


shared: dict[str, Any] = {
    "name": matching(NAME_PATTERN),
    "description": st.text(st.characters(codec="utf-8"), min_size=1, max_size=256),
    "owner": matching(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,20}"),
    "version": matching(
        r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(-[0-9A-Za-z-]{1,5})?(\+[0-9a-z]{1,3})?"
    ),
    "artifact": artifacts,
    "limits": st.builds(Limits, inline_bytes=st.integers(1024, 4194304)),
    "slo": st.builds(
        Slo, availability_percent=st.floats(90, 100, exclude_max=True), p99_ms=st.integers(1, 29000)
    ),
    "capture": st.builds(
        Capture, percent=st.integers(0, 100), keep=st.sampled_from(["both", "requests", "answers"])
    ),
    "drift": st.builds(Drift, enabled=st.booleans(), every_hours=st.sampled_from([1, 6, 24])),
    "release": st.builds(Release, canary_percent=st.integers(0, 50), bake_minutes=st.integers(1, 60)),
    "access": st.builds(Access, scope=st.sampled_from(["shared", "own"])),
}


@st.composite
def gpu_models(draw: st.DrawFn) -> GpuModel:
    instance_type = draw(st.sampled_from([instance for instance in hosted() if is_gpu(instance)]))
    scaling = draw(scalings())
    common = {name: draw(values) for name, values in shared.items()}
    gpu: dict[str, Any] = {
        "instance_type": instance_type,
        "container": draw(matching(NAME_PATTERN)),
        "startup_timeout_seconds": draw(st.integers(60, 3600)),
        "volume_gb": draw(st.none() | st.integers(1, 512)),
    }
    if scaling.min == 0:
        gpu["copy_memory_mb"] = draw(st.integers(128, 100_000))
        gpu["copy_gpus"] = draw(st.integers(1, gpus(instance_type)))
    canary = 0 if scaling.min == 0 else draw(st.integers(0, 50))
    common["release"] = Release(canary_percent=canary, bake_minutes=draw(st.integers(5, 60)))
    return GpuModel(target="gpu", gpu=Gpu(**gpu), scaling=scaling, **common)


specs: st.SearchStrategy[ModelSpec] = (
    st.builds(
        CpuModel,
        target=st.just("cpu"),
        cpu=st.builds(
            Cpu,
            memory_mb=st.integers(128, 10240),
            timeout_seconds=st.integers(1, 29),
            ephemeral_storage_mb=st.integers(512, 10240),
            reserved_concurrency=st.none() | st.integers(1, 10000),
        ),
        **shared,
    )
    | gpu_models()
)
