"""Whether an artifact may be released, as far as that shows without running it.

The command line asks before it uploads, and the validator, which decides, asks of what was uploaded. Pure:
the standard library, and nothing of the artifact is run.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from inference_runtime import graph_file
from inference_runtime.graph_file import IR_VERSIONS, OPSETS
from inference_runtime.manifest import Artifact, ArtifactError, Manifest, TensorSpec

#: The golden request and the rules for its answer (`inference_runtime.expectations`).
REQUEST, EXPECTED = "sample.json", "expected.json"
MAX_FILES = 2000
#: Formats that are pickles, or that their libraries load by unpickling.
PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle"})

_PICKLE_PROTOCOLS = range(2, 6)
_NUMPY = b"\x93NUMPY"


def problems(artifact: Artifact, live: Manifest | None, *, breaking: bool, pickles: bool) -> list[str]:
    """Why the artifact may not follow `live`, the version that is served; empty if nothing speaks against it.

    Args:
        breaking: the release says that clients of the live version may fail.
        pickles: the model's catalog entry admits files that run code when they are read.
    """
    manifest = artifact.manifest
    found = [*_golden(manifest), *_graph(artifact)]
    if not pickles:
        found += _pickles(artifact)
    if live is not None and not breaking:
        found += incompatibilities(live, manifest)
    return found


def fingerprint(etags: Mapping[str, str]) -> str:
    """One hash of which S3 objects hold an artifact's files: another upload of any of them changes it.

    Args:
        etags: of each object, the manifest's among them, by the file's name.
    """
    lines = (f"{name}\0{etag}\n" for name, etag in sorted(etags.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def incompatibilities(live: Manifest, new: Manifest) -> list[str]:
    """What a client that is right today would notice: requests refused, or answers that lack something.

    A new version may take what the live one takes and more, and answer what it answers and more.
    """
    found = []
    takes = {spec.name: spec for spec in new.inputs}
    known = {spec.name for spec in live.inputs}
    for spec in live.inputs:
        if spec.name not in takes:
            found.append(f"input {spec.name!r} is gone")
        elif not _covers(takes[spec.name], spec):
            found.append(f"input {spec.name!r} was {_said(spec)}, and takes only {_said(takes[spec.name])}")
    found += [
        f"input {name!r} is new, and every client would have to send it" for name in takes.keys() - known
    ]
    gives = {spec.name: spec for spec in new.outputs}
    for spec in live.outputs:
        if spec.name not in gives:
            found.append(f"output {spec.name!r} is gone")
        elif not _covers(spec, gives[spec.name]):
            found.append(f"output {spec.name!r} was {_said(spec)}, and is {_said(gives[spec.name])}")
    remedy = f"the signature breaks clients of version {live.version}: "
    return [remedy + "; ".join(sorted(found)) + " (say breaking: true if that is meant)"] if found else []


def _covers(wider: TensorSpec, narrower: TensorSpec) -> bool:
    return (
        wider.datatype == narrower.datatype
        and len(wider.shape) == len(narrower.shape)
        and all(w in (-1, n) for w, n in zip(wider.shape, narrower.shape, strict=True))
    )


def _said(spec: TensorSpec) -> str:
    return f"{spec.datatype}{list(spec.shape)}"


def _golden(manifest: Manifest) -> Iterator[str]:
    missing = [name for name in (REQUEST, EXPECTED) if name not in manifest.files]
    if missing:
        yield f"no {' and no '.join(missing)}: a version has to show a request and what its answer must be"


def _graph(artifact: Artifact) -> Iterator[str]:
    name = artifact.manifest.model
    if name is None:
        return
    try:
        graph = graph_file.read(artifact.folder / name)
    except ArtifactError as error:
        yield str(error)
        return
    if graph.ir_version not in IR_VERSIONS:
        yield f"{name}: ONNX IR version {graph.ir_version}, allowed are {_range(IR_VERSIONS)}"
    if graph.opset is not None and graph.opset not in OPSETS:
        yield f"{name}: opset {graph.opset}, allowed are {_range(OPSETS)}"
    folder = Path(name).parent
    unnamed = sorted(
        location
        for location in graph.external
        if (folder / location).as_posix() not in artifact.manifest.files
    )
    if unnamed:
        yield f"{name}: draws on {', '.join(unnamed[:5])}, which the manifest does not name"


def _range(numbers: range) -> str:
    return f"{numbers.start} to {numbers.stop - 1}"


def _pickles(artifact: Artifact) -> Iterator[str]:
    names = [name for name in sorted(artifact.manifest.files) if _is_pickle(artifact.folder / name)]
    if names:
        yield (
            f"{_listed(names)}: pickles run code when they are read; store arrays as .npy, tables as JSON, "
            "networks as ONNX, or admit them with artifact.pickles: true in model.yaml"
        )


def _is_pickle(path: Path) -> bool:
    if path.suffix.lower() in PICKLES:
        return True
    with path.open("rb") as file:
        start = file.read(4096)
        if start[:1] == b"\x80" and len(start) > 1 and start[1] in _PICKLE_PROTOCOLS:
            file.seek(-1, 2)
            return file.read(1) == b"."
    return _has_objects(start) or (start[:2] == b"PK" and _has_pickled_member(path))


def _has_objects(start: bytes) -> bool:
    """Whether a .npy file's header says that its values are Python objects."""
    header = start[: start.find(b"\n") + 1] if start.startswith(_NUMPY) else b""
    return b"'|O" in header or b"'O" in header


def _has_pickled_member(path: Path) -> bool:
    """Whether an archive (.npz, PyTorch's) holds a pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if Path(member.filename).suffix.lower() in PICKLES:
                    return True
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        if _has_objects(file.read(4096)):
                            return True
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError):
        # Damaged, compressed otherwise or encrypted: who would unpickle a member cannot read it either.
        return False
    return False


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
