"""What the catalog knows about SageMaker hosting instances.

Source: botocore's `ProductionVariantInstanceType`, and the note on `KmsKeyId` in CreateEndpointConfig:
instances with local NVMe storage encrypt it in hardware, and the call fails if it also names a `KmsKeyId`.
"""

from difflib import get_close_matches
from functools import cache

from botocore.loaders import Loader

GPU_FAMILIES = (
    "g4dn",
    "g5",
    "g6",
    "g6e",
    "g7",
    "g7e",
    "p3",
    "p4d",
    "p4de",
    "p5",
    "p5e",
    "p5en",
    "p6-b200",
    "p6-b300",
    "p6e-gb200",
)  # p2 is missing on purpose: no CUDA release that ONNX Runtime still supports runs on its K80.

_LOCAL_NVME = frozenset(GPU_FAMILIES) - {"p3"}


def family(instance_type: str) -> str:
    """`ml.g5.xlarge` -> `g5`. Raises ValueError for anything that is not `ml.<family>.<size>`."""
    prefix, _, rest = instance_type.partition(".")
    name, _, size = rest.partition(".")
    if prefix != "ml" or not name or not size:
        raise ValueError(f"{instance_type!r} is not a SageMaker instance type: expected ml.<family>.<size>")
    return name


def is_gpu(instance_type: str) -> bool:
    """Whether the instance carries an NVIDIA GPU that the containers can use."""
    return family(instance_type) in GPU_FAMILIES


@cache
def hosted() -> tuple[str, ...]:
    """Every instance type that SageMaker hosts endpoints on, in some region."""
    shapes = Loader().load_service_model("sagemaker", "service-2")["shapes"]
    return tuple(shapes["ProductionVariantInstanceType"]["enum"])


def unknown(instance_type: str) -> str | None:
    """Why there is no such instance type, with the nearest that there are; None where there is one."""
    if instance_type in hosted():
        return None
    nearest = get_close_matches(instance_type, hosted(), n=3, cutoff=0)
    return f"is not an instance type of SageMaker endpoints; the nearest are {', '.join(nearest)}"


def supports_kms_volume(instance_type: str) -> bool:
    """Whether an endpoint configuration on this GPU instance may, and so must, set `KmsKeyId`.

    Raises ValueError for a family that is not in GPU_FAMILIES: guessing either way breaks a deployment or
    leaves a volume without the customer's key.
    """
    name = family(instance_type)
    if name not in GPU_FAMILIES:
        raise ValueError(
            f"{instance_type!r} is not a known GPU instance: use one of {', '.join(GPU_FAMILIES)}"
        )
    return name not in _LOCAL_NVME


_SEVERAL_GPUS = {"12xlarge": 4, "24xlarge": 4, "36xlarge": 4, "48xlarge": 8}
_OTHERWISE = {
    "ml.p3.8xlarge": 4,
    "ml.p3.16xlarge": 8,
    "ml.p4d.24xlarge": 8,
    "ml.p4de.24xlarge": 8,
    "ml.g7e.12xlarge": 2,
}


def gpus(instance_type: str) -> int:
    """How many GPUs an instance of this type has; metrics of GPUs are sums over them."""
    return _OTHERWISE.get(instance_type) or _SEVERAL_GPUS.get(instance_type.rpartition(".")[2], 1)
