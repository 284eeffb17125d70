"""Properties of the catalog over generated input."""

import re
import tempfile
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from catalog import CatalogError, CpuModel, GpuModel, ModelSpec, load_model
from tests.strategies import specs


def load(text: str | bytes, folder: str) -> ModelSpec:
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, folder, "model.yaml")
        path.parent.mkdir()
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_model(path)


def dump(value: object) -> bytes:
    with tempfile.TemporaryFile() as file:
        YAML(typ="safe", pure=True).dump(value, file)
        file.seek(0)
        return file.read()


@settings(deadline=None)
@given(specs)
def test_every_spec_survives_being_written_and_read(spec: ModelSpec) -> None:
    # YAML reads these as line breaks, which an editor never writes into a description.
    assume(not set(spec.description) & set("\x85\u2028\u2029"))
    assert load(dump(spec.model_dump(mode="json")), spec.name) == spec


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*CpuModel.model_fields, *GpuModel.model_fields]) | st.text(
    st.characters(codec="utf-8"), max_size=8
)


@settings(deadline=None)
@given(st.dictionaries(keys, values).map(dump) | st.binary(max_size=200))
def test_every_refusal_is_one_printable_line_per_problem_that_names_the_file(text: bytes) -> None:
    try:
        load(text, "tiny")
    except CatalogError as error:
        for line in str(error).split("\n"):
            assert re.match(r"\S+/tiny/model\.yaml:\d+: ", line), line
            assert line.isprintable(), line
            assert "Traceback" not in line
