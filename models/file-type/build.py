"""The `file-type` artifact: Magika's network and its two tables, as its Python package ships them.

Magika is Google's file type detector, Apache-2.0: https://github.com/google/magika. Nothing is converted, so
the artifact's weights have the very SHA-256 of the published ones.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from inference_runtime.manifest import TensorSpec

INPUTS = (TensorSpec("content", "BYTES", (-1,)),)
OUTPUTS = (
    TensorSpec("label", "BYTES", (-1,)),
    TensorSpec("mime_type", "BYTES", (-1,)),
    TensorSpec("score", "FP32", (-1,)),
)

_KB = "magika/config"
_NETWORK = "magika/models/standard_v3_3"
WEIGHTS = {
    f"{_NETWORK}/model.onnx": "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    f"{_NETWORK}/config.min.json": "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    f"{_KB}/content_types_kb.min.json": "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
}


def build(weights: Mapping[str, bytes]) -> dict[str, bytes]:
    """Take the files as they are, without their folders."""
    return {PurePosixPath(path).name: content for path, content in weights.items()}
