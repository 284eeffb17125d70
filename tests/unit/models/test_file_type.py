"""file-type answers as the `magika` package does, for whatever bytes it is sent."""

import base64
import gzip
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from inference_runtime.errors import Problem

MAGIKA = """
import base64, json, sys
from magika import Magika
magika = Magika()
found = [magika.identify_bytes(base64.b64decode(line)) for line in sys.stdin]
json.dump([(f.output.label, f.output.mime_type, f.score) for f in found], sys.stdout)
"""
PYTHON = (
    b"import os\n\n\ndef main():\n    for name in sorted(os.listdir('.')):\n        print(name)\n\n\nmain()\n"
)


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(y, y + 48)) for y in range(16))
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def zipped() -> bytes:
    with BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("notes.txt", "Remember the milk.\n" * 40)
        return file.getvalue()


def tarred() -> bytes:
    with BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            entry = tarfile.TarInfo("main.py")
            entry.size = len(PYTHON)
            archive.addfile(entry, BytesIO(PYTHON))
        return file.getvalue()


def database(folder: Path) -> bytes:
    path = folder / "test.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE city (name TEXT, population INTEGER)")
        connection.execute("INSERT INTO city VALUES ('Bergen', 291940)")
    connection.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of which there is no doubt what they are; the name is Magika's label."""
    return {
        "python": PYTHON,
        "json": json.dumps({"name": "inference", "models": ["file-type"], "stages": {"dev": 1}}).encode(),
        "html": b"<!DOCTYPE html>\n<html><head><title>Hello</title></head><body><p>Hello</p></body></html>\n",
        "csv": b"id,name,price\n" + b"".join(b"%d,item %d,%d.50\n" % (i, i, i) for i in range(30)),
        "png": png(),
        "zip": zipped(),
        "tar": tarred(),
        "gzip": gzip.compress(b"abc" * 500, mtime=0),
        "sqlite": database(tmp_path_factory.mktemp("sqlite")),
        "empty": b"",
        "unknown": np.random.default_rng(1).bytes(5000),
    }


def edge_cases() -> list[bytes]:
    """Around every rule: sizes next to the limits, whitespace at both ends, text cut inside a character."""
    chance = np.random.default_rng(2)
    text = "Ærlig talt, så vet jeg ikke. 漢字かな交じり文。 Ελληνικά и русский 🙂\n".encode()
    spaces = [b" ", b"\n", b"\t \r\n\x0b\x0c"]
    cases = [
        b"a",
        b"\xff",
        b"1234567",
        b"12345678",
        b"\xff" * 7,
        b"\x00" * 8,
        b"\x00" * 100,
        text,
        text * 400,
    ]
    cases += [chance.bytes(size) for size in (1, 7, 8, 9, 100, 1023, 1024, 1025, 4095, 4096, 4097, 100_000)]
    cases += [space * count for space in spaces for count in (1, 7, 8, 4095, 4096, 4097, 10_000)]
    cases += [space * count + PYTHON for space in spaces for count in (1, 3000, 4090, 4096, 9000)]
    cases += [PYTHON + space * count for space in spaces for count in (1, 3000, 4090, 4096, 9000)]
    cases += [b" " * 5000 + b"abc", b" " * 4090 + b"abcdefgh" * 3, b"\x1c" * 20, b"\xa0" * 20, b"\x85" * 20]
    cases += ["é".encode() * 10, b" " * 4095 + "é".encode() * 10, b"x" + "é".encode() * 4000]
    cases += [
        PYTHON * 20_000,
        b"{" * 5000,
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"%PDF-1.4\n%\xe2\xe3",
    ]
    return cases


def real_files() -> list[bytes]:
    """What this machine has: sources, libraries, executables; and pieces of them, which are less certain."""
    chance = np.random.default_rng(3)
    library = Path(os.__file__).parent
    paths = [
        *sorted(library.glob("*.py"))[::6],
        *sorted(library.glob("lib-dynload/*"))[:3],
        Path(sys.executable),
    ]
    paths += sorted(Path(__file__).parents[3].glob("*.*"))
    paths += sorted(Path(np.__file__).parent.glob("**/*.so"))[:3]
    whole = [path.read_bytes()[:3_000_000] for path in paths if path.is_file()]
    pieces = []
    for content in whole:
        start = chance.integers(max(len(content), 1))
        pieces.append(content[start : start + chance.choice([12, 30, 80, 300, 2000])])
    return whole + pieces


def test_answers_are_those_of_the_magika_package(identify, wheels, known):
    contents = [*known.values(), *edge_cases(), *real_files()]

    answers = [
        (label.decode(), mime_type.decode(), float(score))
        for content in contents
        for label, mime_type, score in zip(*identify([content]).values(), strict=True)
    ]

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MAGIKA],
        input="".join(base64.b64encode(content).decode() + "\n" for content in contents),
        env={**os.environ, "PYTHONPATH": str(wheels)},
        capture_output=True,
        text=True,
        check=True,
    )

    expected = json.loads(done.stdout)
    assert [answer[:2] for answer in answers] == [tuple(answer[:2]) for answer in expected]
    np.testing.assert_allclose([a[2] for a in answers], [e[2] for e in expected], atol=1e-6)
    # The comparison means something only if the model was asked, was unsure, and was not asked.
    assert {"txt", "unknown", "empty"} < {label for label, _, _ in answers}
    assert any(label in ("txt", "unknown") and score < 0.5 for label, _, score in answers)
    assert sum(score == 1.0 for _, _, score in answers) > 30


def test_files_of_which_there_is_no_doubt_get_their_label(identify, known):
    labels = identify(list(known.values()))["label"]

    assert [label.decode() for label in labels] == list(known)


@pytest.mark.parametrize(
    ("content", "label", "mime_type"),
    [
        (b"", b"empty", b"inode/x-empty"),
        (b"a", b"txt", b"text/plain"),
        (b"   \n\t  " * 2000, b"txt", b"text/plain"),
        ("é".encode(), b"txt", b"text/plain"),
        (b"\xff", b"unknown", b"application/octet-stream"),
        # Cut in the middle of a character by the block of 4096 bytes that is looked at.
        (b" " * 4095 + "é".encode(), b"unknown", b"application/octet-stream"),
    ],
)
def test_too_few_bytes_for_the_network_are_certain_by_rule(identify, content, label, mime_type):
    answer = identify([content])

    assert (answer["label"][0], answer["mime_type"][0], answer["score"][0]) == (label, mime_type, 1.0)


def test_a_batch_is_answered_as_its_files_one_by_one(identify, known):
    contents = [*known.values(), b"a", b""]

    together = identify(contents)

    alone = [identify([content]) for content in contents]
    for name in ("label", "mime_type"):
        assert together[name].tolist() == [answer[name][0] for answer in alone]
    np.testing.assert_allclose(together["score"], [answer["score"][0] for answer in alone], atol=1e-2)


def test_only_the_ends_of_a_large_file_are_looked_at(identify):
    large = PYTHON * 5000
    middle_is_zeros = large[:4096] + bytes(len(large) - 8192) + large[-4096:]

    assert identify([large]) == identify([middle_is_zeros])
    assert identify([large])["label"] == [b"python"]


def test_too_many_files_are_refused_with_the_number_that_is_allowed(identify):
    with pytest.raises(Problem, match="129 files; send at most 128") as refused:
        identify([b"x"] * 129)

    assert refused.value.slug == "invalid-data"


def test_a_configuration_of_another_generation_is_refused(artifacts, load_module, tmp_path):
    handler = load_module(artifacts / "file-type" / "handler.py")
    for name in ("config.min.json", "content_types_kb.min.json"):
        content = (artifacts / "file-type" / name).read_text()
        (tmp_path / name).write_text(content.replace('"mid_size":0', '"mid_size":512'))

    with pytest.raises(ValueError, match="mid_size"):
        handler.load(tmp_path)
