"""What the rules find, what they leave, and that a hostile text does not make them slow."""

import numpy as np
import pytest

from inference_runtime.errors import Problem
from inference_runtime.manifest import verify
from inference_runtime.model import Model


@pytest.fixture(scope="module")
def model(artifacts):
    return Model(verify(artifacts / "pii-redaction"))


@pytest.fixture(scope="module")
def redact(model):
    def redact(*texts: bytes) -> list[tuple[str, int]]:
        array = np.array(texts, np.object_)
        answer = model.infer({"text": array}, ["redacted", "found"])
        return [
            (text.decode(), int(found))
            for text, found in zip(answer["redacted"], answer["found"], strict=True)
        ]

    return redact


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail a.b+c@mail.example.co.uk, please", "mail [EMAIL], please"),
        ("<jörg@example.org>", "<[EMAIL]>"),
        ("5500-0000-0000-0004", "[CARD]"),
        ("378282246310005.", "[CARD]."),
        ("GB82 WEST 1234 5698 7654 32 is one", "[IBAN] is one"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("+1 (415) 555-2671", "[PHONE]"),
        ("+4791234567 or +47 912 34 568", "[PHONE] or [PHONE]"),
        ("from 10.0.0.1.", "from [IP]."),
        ("fe80::1%eth0", "[IP]%eth0"),
    ],
)
def test_personal_data_are_replaced_by_their_kind(redact, text, redacted):
    assert redact(text.encode()) == [(redacted, redacted.count("["))]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no@address, a@b and @example.com",
        "4111 1111 1111 1112",  # its check digit is wrong
        "GB82 WEST 1234 5698 7654 33",
        "order 1234567890123456789012345",
        "version 1.2.3.4.5 and 300.1.1.1",
        "12:30:45, std::vector, ab:cd",
        "1 + 2 = 3",
        "naïve ☃ \x00",
    ],
)
def test_what_only_looks_like_personal_data_stays(redact, text):
    assert redact(text.encode()) == [(text, 0)]


def test_the_texts_of_a_request_are_answered_in_order(redact):
    texts = [b"a@example.com b@example.com", b"", b"c@example.com"]

    assert [found for _, found in redact(*texts)] == [2, 0, 1]
    assert redact() == []


# Where a pattern backtracks over the whole text, one of these is not answered within minutes.
@pytest.mark.parametrize("unit", ["a", "a.", "1", "1 ", "+1", "A1", "a@", "ab:", "1.", "AB12 "])
def test_a_long_text_that_is_nearly_a_match_throughout_is_answered(redact, unit):
    text = unit * 100_000

    assert redact(text.encode()) == [(text, 0)]


@pytest.mark.parametrize(
    ("texts", "reason"),
    [([b"ok", b"\xff"], r"text\[1\] is not UTF-8: byte 0 is 0xff"), ([b""] * 1025, "at most 1024")],
)
def test_what_cannot_be_read_is_the_clients_error(redact, texts, reason):
    with pytest.raises(Problem, match=reason) as refused:
        redact(*texts)
    assert refused.value.slug == "invalid-data"
