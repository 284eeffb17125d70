"""Personal data in texts, replaced by what kind of data they were.

Public input: `text` BYTES [n], UTF-8.
Public outputs: `redacted` BYTES [n], the texts with `[EMAIL]`, `[IBAN]`, `[CARD]`, `[PHONE]` and `[IP]` in
place of what was found; `found` INT32 [n], how many replacements that were.

The rules are about the form of the data: a pattern finds candidates, and a check digit, where the kind has
one, decides. Names and postal addresses have no form and stay: a filter before logs or an index, no
anonymization.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

MAX_TEXTS = 1024

_SEPARATORS = re.compile(r"[ -]")


def _is_card(number: str) -> bool:
    """ISO/IEC 7812-1, annex B (Luhn)."""
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [2 * digit - 9 * (digit > 4) for digit in digits[1::2]]) % 10 == 0


def _is_iban(number: str) -> bool:
    """ISO 13616: the first four characters go to the end, letters count from 10, and 97 leaves 1."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Kind:
    """One kind of data. `check` decides on a candidate; for numbers, without their spaces and hyphens."""

    label: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None
    is_number: bool = False

    def redact(self, text: str) -> tuple[str, int]:
        """The text without this kind, and how many there were."""
        found = 0

        def replaced(match: re.Match[str]) -> str:
            nonlocal found
            candidate = match[0]
            if self.check and not self.check(_SEPARATORS.sub("", candidate) if self.is_number else candidate):
                return candidate
            found += 1
            return f"[{self.label}]"

        return self.pattern.sub(replaced, text), found


# Repetitions have bounds, and no candidate starts inside another: the time is linear, whatever the text.
KINDS = (
    Kind("EMAIL", re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")),
    Kind(
        "IBAN",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _is_iban,
        is_number=True,
    ),
    Kind("CARD", re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?!-?\d)"), _is_card, is_number=True),
    # E.164: at most 15 digits after the plus.
    Kind("PHONE", re.compile(r"(?<![\w+])\+[1-9](?:[ ()./-]{0,2}\d){6,14}(?!\d)")),
    Kind("IP", re.compile(r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)"), _is_address),
    Kind("IP", re.compile(r"(?<![\w.:])[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2,34}(?![\w:])"), _is_address),
)


def preprocess(inputs: Arrays, _: None) -> Arrays:
    """The texts as `str`.

    Raises:
        ValueError: there are more than MAX_TEXTS texts, or one is not UTF-8.
    """
    texts = inputs["text"]
    if len(texts) > MAX_TEXTS:
        raise ValueError(f"text holds {len(texts)} texts; send at most {MAX_TEXTS} in one request")
    return {"text": np.array([_decoded(index, text) for index, text in enumerate(texts)], np.object_)}


def infer(inputs: Arrays, _: None) -> Arrays:
    """Redact each text."""
    answers = [_redact(text) for text in inputs["text"]]
    return {
        "redacted": np.array([text for text, _ in answers], np.object_),
        "found": np.array([found for _, found in answers], np.int32),
    }


def _redact(text: str) -> tuple[bytes, int]:
    total = 0
    for kind in KINDS:
        text, found = kind.redact(text)
        total += found
    return text.encode(), total


def _decoded(index: int, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"text[{index}] is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}"
        ) from None
