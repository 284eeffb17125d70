"""docs/api.md says of every problem what the runtime says of it."""

import json
import re

from inference_runtime.errors import PROBLEMS, Problem
from inference_runtime.service import DEFAULT_MAX_BODY_BYTES, MAX_ANSWER_BYTES
from inference_runtime.tensors import DTYPES
from tests.docs.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "api.md").read_text()


def test_the_table_lists_exactly_the_problems_that_exist_with_status_meaning_and_remedy() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \| (.+?) \| (.+?) \|$", DOCUMENT, re.M)
    assert {slug: int(status) for slug, status, _, _ in rows} == {
        slug: status for slug, (status, _) in PROBLEMS.items()
    }
    assert len(rows) == len(PROBLEMS)


def test_the_example_has_the_shape_of_a_problem_document() -> None:
    [example] = [
        json.loads(block)
        for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)
        if "urn:inference-platform:problem:" in block
    ]
    slug = example["type"].rpartition(":")[2]
    produced = json.loads(Problem(slug, example["detail"]).document(example["request_id"]))
    assert example == produced
    assert list(example) == list(produced)


def test_every_datatype_and_limit_is_the_runtimes_own() -> None:
    section = DOCUMENT.partition("### Datatypes")[2].partition("###")[0]
    assert set(re.findall(r"`([A-Z]+\d*)`", section.partition("- Nothing")[0])) == set(DTYPES)
    limits = DOCUMENT.partition("### Limits")[2].partition("###")[0]
    for limit in (DEFAULT_MAX_BODY_BYTES, MAX_ANSWER_BYTES):
        assert f"{limit} bytes" in limits
