"""CloudWatch Logs' filter patterns, by the documentation's rules."""

import json

import pytest

from local_aws.filter_patterns import InvalidPattern, matcher, value_of

EVENT = {
    "eventName": "DeleteKey",
    "readOnly": False,
    "error": None,
    "status": "429",
    "bytes": 512,
    "user": {"type": "Root", "roles": ["admin", "ops"]},
    "odd.key": 1,
}


@pytest.mark.parametrize(
    "pattern",
    [
        '{ $.eventName = "DeleteKey" }',
        "{ $.eventName = Delete* }",
        '{ $.eventName != "Create*" }',
        "{ $.eventName = %^Del% }",
        "{ $.bytes > 511 && $.bytes <= 512 }",
        '{ ($.status = "429") }',
        "{ $.status = 429 }",
        "{ $.readOnly IS FALSE }",
        "{ $.error IS NULL }",
        "{ $.absent NOT EXISTS }",
        '{ $.user.roles[1] = "ops" }',
        '{ $["odd.key"] = 1 }',
        '{ ($.user.type = "Root") && (($.bytes = 1) || ($.bytes = 512)) }',
        '{ $.bytes = 1 && $.status = "0" || $.readOnly IS FALSE }',
    ],
)
def test_conditions_that_a_json_line_meets(pattern: str) -> None:
    assert matcher(pattern)(json.dumps(EVENT))


@pytest.mark.parametrize(
    "pattern",
    [
        '{ $.eventName = "deletekey" }',
        '{ $.absent != "x" }',
        "{ $.readOnly IS TRUE }",
        "{ $.error NOT EXISTS }",
        "{ $.bytes < 512 }",
        "{ $.readOnly > 0 }",
        '{ $.user.roles[2] = "ops" }',
        '{ ($.user.type = "Root") && ($.bytes = 1) }',
        '{ $.eventName = "Delete[K]ey" }',
    ],
)
def test_conditions_that_it_does_not(pattern: str) -> None:
    assert not matcher(pattern)(json.dumps(EVENT))


def test_a_line_that_is_not_json_meets_no_condition() -> None:
    assert not matcher("{ $.a NOT EXISTS }")("plain text")


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("", True),
        ("ERROR", True),
        ("error", False),
        ("ERROR timeout", True),
        ("ERROR refused", False),
        ('"after 3 s"', True),
        ("ERROR -timeout", False),
        ("?refused ?timeout", True),
        ("?refused ?closed", False),
        ("%[0-9]+ s%", True),
    ],
)
def test_terms(pattern: str, matches: bool) -> None:
    assert matcher(pattern)("ERROR timeout after 3 s") is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "[ip, user]",
        "{ $.a = 1",
        "{ $.a }",
        "{ $.a > x }",
        "{ a = 1 }",
        '"open',
        "{ ($.a = 1 }",
        "{ $.a IS MAYBE }",
        "{ $.a = 1 } }",
        "{ $.a = && }",
    ],
)
def test_what_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPattern):
        matcher(pattern)


def test_a_selector_finds_a_fields_value() -> None:
    assert value_of(json.dumps(EVENT), "$.user.roles[0]") == "admin"
    assert value_of(json.dumps(EVENT), "$.user.name") is None
    assert value_of("plain text", "$.user") is None
