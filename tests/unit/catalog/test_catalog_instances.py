"""Which instances carry a GPU, and which of them take a KMS key for their volume."""

import botocore.session
import pytest

from catalog.instances import GPU_FAMILIES, family, is_gpu, supports_kms_volume

OFFERED = (
    botocore.session.get_session()
    .get_service_model("sagemaker")
    .shape_for("ProductionVariantInstanceType")
    .enum
)


@pytest.mark.parametrize("name", GPU_FAMILIES)
def test_every_listed_family_is_one_that_sagemaker_offers(name: str) -> None:
    assert name in {family(instance) for instance in OFFERED}


def test_no_gpu_family_that_sagemaker_offers_is_forgotten() -> None:
    graphics = {family(i) for i in OFFERED if i.startswith(("ml.g", "ml.p"))}
    assert graphics - set(GPU_FAMILIES) == {"p2"}


@pytest.mark.parametrize(
    "instance",
    [
        "ml.g4dn.xlarge", "ml.g5.xlarge", "ml.g6.xlarge", "ml.g6e.xlarge", "ml.g7.2xlarge", "ml.g7e.2xlarge",
        "ml.p4d.24xlarge", "ml.p4de.24xlarge", "ml.p5.4xlarge", "ml.p5e.48xlarge", "ml.p5en.48xlarge",
        "ml.p6-b200.48xlarge", "ml.p6-b300.48xlarge", "ml.p6e-gb200.36xlarge",
    ],
)  # fmt: skip
def test_local_nvme_is_encrypted_in_hardware_and_takes_no_key(instance: str) -> None:
    assert not supports_kms_volume(instance)


@pytest.mark.parametrize("instance", ["ml.p3.2xlarge", "ml.p3.16xlarge"])
def test_a_volume_on_ebs_takes_the_customers_key(instance: str) -> None:
    assert supports_kms_volume(instance)


def test_an_unknown_family_is_refused_rather_than_guessed() -> None:
    with pytest.raises(ValueError, match=r"'ml\.m5\.large' is not a known GPU instance: use one of g4dn"):
        supports_kms_volume("ml.m5.large")


@pytest.mark.parametrize("instance", ["g5.xlarge", "ml.g5", "ml..xlarge", "", "ml.g5."])
def test_what_is_not_an_instance_type_is_refused(instance: str) -> None:
    with pytest.raises(ValueError, match=r"expected ml\.<family>\.<size>"):
        is_gpu(instance)
