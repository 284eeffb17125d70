"""The model that the README adds is a model: its blocks are built, loaded and asked."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from inference_runtime.expectations import check
from inference_runtime.manifest import verify
from inference_runtime.model import Model
from tests.docs.conftest import ROOT


@pytest.fixture
def builder() -> ModuleType:
    """models/build.py, which is no package."""
    spec = importlib.util.spec_from_file_location("readme_model_builder", ROOT / "models" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def test_the_model_of_the_readme_builds_and_answers_its_sample(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    files = dict(re.findall(r"^`models/fahrenheit/([a-z.]+)`\n\n```[a-z]+\n(.*?)^```", readme, re.M | re.S))
    assert set(files) == {"model.yaml", "build.py", "sample.json", "expected.json"}
    folder = tmp_path / "models" / "fahrenheit"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)

    monkeypatch.setattr(builder, "MODELS", folder.parent)
    assert builder.main(["--output", str(tmp_path / "artifacts")]) == 0

    model = Model(verify(tmp_path / "artifacts" / "fahrenheit"))
    answer = json.loads(model.answer(files["sample.json"].encode()).body)
    assert check(json.loads(files["expected.json"]), answer) == []
