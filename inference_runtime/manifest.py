"""What an artifact is: a folder whose `manifest.json` names every file with its SHA-256.

An artifact's id is the SHA-256 of its manifest's bytes, so the id covers every file. The manifest's inputs
and outputs are the signature that clients see; the ONNX graph may differ from it when a handler translates.
An input may say with what it is made longer, `"padding": 0`, so that requests of different lengths can share
a batch (`inference_runtime/padding.py`).
An artifact without a graph (`model` is null) is run by its handler alone.

Only the standard library is imported: the Lambda that publishes artifacts has nothing else.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

FILE_NAME = "manifest.json"
SCHEMA = 1
#: What runs a model, as clients see it: its ONNX graph, or its handler alone.
ONNX, PYTHON = "onnxruntime_onnx", "python"
#: The Open Inference Protocol v2 datatypes that a signature may use.
DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PADDED = "left out where the first axis or all others are fixed"
_INTEGER = re.compile(r"(U?)INT(\d+)")
_NONE: Mapping[str, Any] = MappingProxyType({})


class ArtifactError(Exception):
    """The artifact is not what it says it is. For operators: the message names files and hashes."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One public tensor. `shape` holds fixed lengths, or -1 where the client chooses (at least 1).

    `padding`, of an input, is the value after its end that changes no answer; None where there is no such.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    padding: float | None = None

    def described(self) -> dict[str, Any]:
        """As the protocol's metadata have it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's lower-case hexadecimal SHA-256 and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed `manifest.json`; `sha256` is the artifact's id."""

    sha256: str
    name: str
    version: str
    platform: str
    model: str | None
    handler: str | None
    files: dict[str, FileEntry]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files.values())

    def metadata(self) -> dict[str, Any]:
        """The Open Inference Protocol's model metadata: the signature, and which artifact this is."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self.platform,
            "inputs": [spec.described() for spec in self.inputs],
            "outputs": [spec.described() for spec in self.outputs],
            "parameters": {"artifact_sha256": self.sha256},
        }


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder that `verify` has found to hold what its manifest promises: the only kind that is loaded."""

    folder: Path
    manifest: Manifest


def parse(content: bytes, expected_sha256: str | None = None) -> Manifest:
    """Read a manifest's bytes.

    Raises:
        ArtifactError: the bytes do not hash to `expected_sha256`, or a field is missing, unknown or wrong.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise ArtifactError(f"{FILE_NAME}: SHA-256 is {sha256}, expected {expected_sha256}")
    try:
        document = json.loads(content, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{FILE_NAME}: not valid JSON: {error}") from None

    fields = _fields(
        "the document",
        document,
        {
            "schema": int, "name": str, "version": str, "platform": str, "model": str | None,
            "handler": str | None, "files": dict, "inputs": list, "outputs": list,
        },
    )  # fmt: skip
    _require(fields["schema"] == SCHEMA, "schema", fields["schema"], f"{SCHEMA}")
    _require(
        _NAME.fullmatch(fields["name"]), "name", fields["name"], "lower-case letters, digits and hyphens"
    )
    _require(fields["version"], "version", fields["version"], "a non-empty string")
    platform = _platform(fields["model"])
    _require(fields["platform"] == platform, "platform", fields["platform"], f"{platform!r}")
    _require(fields["model"] or fields["handler"], "handler", None, "one of `files`, as there is no `model`")

    files = {name: _file(name, entry) for name, entry in fields["files"].items()}
    for key in ("model", "handler"):
        if fields[key] is not None:
            _require(fields[key] in files, key, fields[key], "one of `files`")
    return Manifest(
        sha256=sha256,
        name=fields["name"],
        version=fields["version"],
        platform=fields["platform"],
        model=fields["model"],
        handler=fields["handler"],
        files=files,
        inputs=_signature("inputs", fields["inputs"], {"padding": int | float}),
        outputs=_signature("outputs", fields["outputs"]),
    )


def verify(folder: Path, expected_sha256: str | None = None) -> Artifact:
    """Check that `folder` holds the bytes its manifest promises, and has the expected id if one is given.

    Files that the manifest does not name are ignored: nothing loads them.

    Raises:
        ArtifactError: naming the file and, where they differ, both hashes.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ArtifactError(f"{FILE_NAME}: missing from {folder}")
    manifest = parse(path.read_bytes(), expected_sha256)
    root = folder.resolve()
    for name, entry in manifest.files.items():
        file = (root / name).resolve()
        if not file.is_relative_to(root):
            raise ArtifactError(f"{name}: a link that leaves the artifact's folder")
        if not file.is_file():
            raise ArtifactError(f"{name}: missing, expected {entry.size} bytes with SHA-256 {entry.sha256}")
        found = describe(file)
        if found != entry:
            raise ArtifactError(
                f"{name}: SHA-256 is {found.sha256} ({found.size} bytes), "
                f"expected {entry.sha256} ({entry.size} bytes)"
            )
    return Artifact(folder, manifest)


def write(
    folder: Path,
    *,
    name: str,
    version: str,
    model: str | None,
    handler: str | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Manifest:
    """Describe every file already in `folder` in a canonical `manifest.json`: same files, same id.

    Raises:
        ArtifactError: the result would not be a valid artifact.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE_NAME)
    content = json.dumps(
        {
            "schema": SCHEMA,
            "name": name,
            "version": version,
            "platform": _platform(model),
            "model": model,
            "handler": handler,
            "files": {path.relative_to(folder).as_posix(): asdict(describe(path)) for path in paths},
            "inputs": [_written(spec) for spec in inputs],
            "outputs": [_written(spec) for spec in outputs],
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    manifest = parse(content)
    (folder / FILE_NAME).write_bytes(content)
    return manifest


def describe(path: Path) -> FileEntry:
    """The SHA-256 and the size of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256, file.tell())


def _platform(model: str | None) -> str:
    return PYTHON if model is None else ONNX


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _fields(
    where: str, document: Any, types: Mapping[str, Any], optional: Mapping[str, Any] = _NONE
) -> dict[str, Any]:
    """`document` if it is an object with these members, and at most the optional ones, of these types."""
    if not isinstance(document, dict):
        raise ArtifactError(f"{FILE_NAME}: {where} is not an object")
    for problem, keys in (
        ("unknown", document.keys() - types.keys() - optional.keys()),
        ("missing", types.keys() - document.keys()),
    ):
        if keys:
            raise ArtifactError(f"{FILE_NAME}: {where}: {problem} {', '.join(sorted(keys))}")
    for key, value in document.items():
        # JSON's true is a Python int.
        if not isinstance(value, {**types, **optional}[key]) or isinstance(value, bool):
            raise ArtifactError(f"{FILE_NAME}: {where}: {key} has the wrong type ({type(value).__name__})")
    return document


def _require(condition: object, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise ArtifactError(f"{FILE_NAME}: {field} is {value!r}; it must be {allowed}")


def _file(name: str, entry: Any) -> FileEntry:
    path = PurePosixPath(name)
    # The one spelling of a relative path, so that no name can leave the folder or alias another.
    plain = name == path.as_posix() and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    _require(
        plain and name not in ("", ".", FILE_NAME), "files", name, "plain relative paths inside the folder"
    )
    fields = _fields(f"files[{name!r}]", entry, {"sha256": str, "size": int})
    _require(
        _SHA256.fullmatch(fields["sha256"]), f"files[{name!r}].sha256", fields["sha256"], "64 hex digits"
    )
    _require(fields["size"] >= 0, f"files[{name!r}].size", fields["size"], "at least 0")
    return FileEntry(fields["sha256"], fields["size"])


def _signature(
    where: str, documents: Iterable[Any], optional: Mapping[str, Any] = _NONE
) -> tuple[TensorSpec, ...]:
    specs: dict[str, TensorSpec] = {}
    for index, document in enumerate(documents):
        field = f"{where}[{index}]"
        fields = _fields(field, document, {"name": str, "datatype": str, "shape": list}, optional)
        name, shape = fields["name"], fields["shape"]
        _require(name and name not in specs, f"{field}.name", name, "non-empty and unique")
        _require(
            fields["datatype"] in DATATYPES, f"{field}.datatype", fields["datatype"], f"one of {DATATYPES}"
        )
        _require(
            all(type(length) is int and (length == -1 or length > 0) for length in shape),
            f"{field}.shape", shape, "a list of lengths, each at least 1, or -1 for any",
        )  # fmt: skip
        padding = fields.get("padding")
        specs[name] = spec = TensorSpec(name, fields["datatype"], tuple(shape), padding)
        if padding is not None:
            _require(-1 in shape[1:] and shape[0] == -1, f"{field}.padding", padding, _PADDED)
            _require(_fills(spec), f"{field}.padding", padding, f"a value of {spec.datatype}")
    _require(specs, where, [], "at least one tensor")
    return tuple(specs.values())


def _fills(spec: TensorSpec) -> bool:
    """Whether its padding is a value of its datatype."""
    value = spec.padding
    assert value is not None
    if spec.datatype == "BOOL":
        return value in (0, 1)
    if found := _INTEGER.fullmatch(spec.datatype):
        bits = int(found[2])
        low, high = (0, 1 << bits) if found[1] else (-1 << (bits - 1), 1 << (bits - 1))
        return isinstance(value, int) and low <= value < high
    return spec.datatype != "BYTES" and isfinite(value)


def _written(spec: TensorSpec) -> dict[str, Any]:
    return spec.described() | ({} if spec.padding is None else {"padding": spec.padding})
