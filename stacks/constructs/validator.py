"""The function that tries a model's new versions before they are released.

One for each model: a version's handler is code of whoever published it, and may at worst deceive the
validator of its own model. It is the serving function's package with another entry point, in the private
network, and may read this model's files: those uploaded, and those released.
"""

from aws_cdk import aws_iam as iam

from catalog.model import ModelSpec
from catalog.names import UPLOADS
from stacks.base import PlatformStack
from stacks.constructs.function import PlatformFunction
from stacks.constructs.private_network import PrivateNetwork

GPU_MEMORY_MB = 3008
"""What every account allows; GPU models that need more say so."""

LARGEST_STORAGE_MB = 10240
"""Of a function: what a GPU model's artifact has to fit in."""

SECONDS = 900
"""Of a function, at most."""

GPU_ANSWER_SECONDS = 60
"""What SageMaker waits for an answer."""

ROOM = 0.9
"""Share of the storage that an artifact may fill."""


class Validator(PlatformFunction):
    def __init__(self, stack: PlatformStack, spec: ModelSpec) -> None:
        bucket = stack.bucket_arn("models")
        folders = [f"{bucket}/{folder}/{spec.name}/*" for folder in UPLOADS] + [f"{bucket}/{spec.name}/*"]
        if spec.target == "cpu":
            memory_mb, storage_mb = spec.cpu.memory_mb, spec.cpu.ephemeral_storage_mb
            answer_seconds = spec.cpu.timeout_seconds
            promised = {"P50_MS": str(spec.slo.p50_ms or spec.slo.p99_ms)}
        else:
            memory_mb, storage_mb = GPU_MEMORY_MB, LARGEST_STORAGE_MB
            answer_seconds = GPU_ANSWER_SECONDS
            promised = {}
        super().__init__(
            stack,
            "Validator",
            source="inference",
            module="validate",
            function_name=stack.names.validator(spec.name, spec.home),
            log_group_name=stack.names.log_group(f"validate/{spec.home}/{spec.name}"),
            description=f"Tries new versions of {spec.name} before they are released",
            environment={
                "MODEL_NAME": spec.name,
                "MODELS_BUCKET": stack.bucket_name("models"),
                "MAX_BYTES": str(int(storage_mb * 1024 * 1024 * ROOM)),
                "ANSWER_SECONDS": str(answer_seconds),
                "PICKLES": str(spec.artifact.pickles).lower(),
                **promised,
            },
            memory_mb=spec.release.validate_memory_mb or max(memory_mb, 512),
            timeout_seconds=SECONDS,
            ephemeral_storage_mb=storage_mb,
            statements=[
                iam.PolicyStatement(sid="ReadVersions", actions=["s3:GetObject"], resources=folders),
                iam.PolicyStatement(
                    # Without it a missing file answers 403 instead of 404, and a publisher's mistake looks
                    # like ours.
                    sid="FindVersions",
                    actions=["s3:ListBucket"],
                    resources=[bucket],
                ),
                iam.PolicyStatement(
                    sid="DecryptVersions",
                    actions=["kms:Decrypt"],
                    resources=[stack.key("models").key_arn],
                ),
            ],
            wildcards=dict.fromkeys(folders, "A version is a folder; publishing adds new ones."),
            network=PrivateNetwork.of(stack),
        )
