"""The models as their build makes them, and the build itself."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from inference_runtime.manifest import verify
from inference_runtime.model import Model

ROOT = Path(__file__).parents[3]

Infer = Callable[[list[bytes]], dict[str, np.ndarray]]


def module(path: Path) -> ModuleType:
    """A Python file of models/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"under_test_{path.stem}", path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[found.__name__] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="session")
def load_module() -> Callable[[Path], ModuleType]:
    return module


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    return module(ROOT / "models" / "build.py")


@pytest.fixture(scope="session")
def artifacts(builder: ModuleType) -> Path:
    """build/artifacts, up to date."""
    assert builder.main([]) == 0
    return builder.BUILD / "artifacts"


@pytest.fixture(scope="session")
def rebuilt(builder: ModuleType, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every artifact once more, from the beginning."""
    output = tmp_path_factory.mktemp("rebuilt")
    assert builder.main(["--output", str(output)]) == 0
    return output


@pytest.fixture(scope="session")
def wheels(builder: ModuleType, rebuilt: Path) -> Path:
    """The unpacked weight wheels, which a build leaves behind."""
    return builder.BUILD / "wheels"


@pytest.fixture(scope="session")
def file_type(artifacts: Path) -> Model:
    return Model(verify(artifacts / "file-type"))


@pytest.fixture(scope="session")
def text_embedding(artifacts: Path) -> Model:
    return Model(verify(artifacts / "text-embedding"))


@pytest.fixture(scope="session")
def identify(file_type: Model) -> Infer:
    return lambda contents: _infer(file_type, contents)


@pytest.fixture(scope="session")
def embed(text_embedding: Model) -> Callable[[list[bytes]], np.ndarray]:
    return lambda texts: _infer(text_embedding, texts)["embedding"]


@pytest.fixture(scope="session")
def sample() -> Callable[[str, str], Any]:
    return lambda model, file: json.loads((ROOT / "models" / model / file).read_bytes())


def _infer(model: Model, values: list[bytes]) -> dict[str, np.ndarray]:
    array = np.empty(len(values), np.object_)
    array[:] = values
    inputs = {model.manifest.inputs[0].name: array}
    return model.infer(inputs, [spec.name for spec in model.manifest.outputs])
