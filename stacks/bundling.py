"""What gets uploaded: zips of Lambda functions and of model artifacts, made without Docker.

Same inputs, same bytes: members are sorted and carry one timestamp and one mode, so that an asset's hash, and
with it a deployment, changes only when its content does. Everything is kept under `build/` by a hash of all
inputs; a second call finds it there. Files appear there whole or not at all, whoever else is building.

Only the standard library and uv are imported, never aws_cdk: the zips can be made without a synth.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import uv

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
#: Our package that functions may import; it goes into the zip of those that do.
SHARED = "inference_runtime"
HOST = "host"

#: Left out of the zips: what an import never reads. Measured on `inference` for x86_64: 166 MB unzipped with them,
#: 101 MB without, of Lambda's 250.
_UNUSED = (
    "bin/*", ".lock", "*/__pycache__/*", "*.pyi", "*/tests/*", "*.dist-info/RECORD", "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED", "*.dist-info/direct_url.json",
    "onnxruntime/transformers/*", "onnxruntime/quantization/*", "onnxruntime/tools/*",
)  # fmt: skip
#: botocore describes 400 services in 26 MB; functions that carry their own boto3 call these.
_BOTOCORE_SERVICES = ("s3", "sts")


def lambda_zip(function: str, *, python: str, architecture: str) -> Path:
    """The deployment package of `lambda_src/<function>/`.

    Its `*.py` files at the root, the shared runtime if they import it, and the wheels that its
    `requirements.txt` locks.

    Args:
        python: the Lambda runtime's version, such as `3.14`, or `host`, the running interpreter's.
        architecture: `x86_64`, `arm64`, or `host`, this machine's.

    Raises:
        ValueError: there is no such function, or the architecture is unknown.
        subprocess.CalledProcessError: uv cannot install the wheels; it has said why on stderr.
    """
    folder = ROOT / "lambda_src" / function
    if not (folder / "handler.py").is_file():
        raise ValueError(f"lambda_src/{function}/handler.py does not exist")
    sources = {path.name: path for path in folder.glob("*.py")}
    if any(re.search(rf"^(from|import) {SHARED}\b", path.read_text(), re.M) for path in sources.values()):
        sources |= {str(path.relative_to(ROOT)): path for path in (ROOT / SHARED).rglob("*.py")}
    requirements = folder / "requirements.txt"
    if not requirements.exists():
        key = _hash(sources.items())
        return _once(f"lambda-{function}-{key}.zip", lambda path: _write_zip(path, sources, zipfile.ZIP_DEFLATED))

    target = _target(python, architecture)
