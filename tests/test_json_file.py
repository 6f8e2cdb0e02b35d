"""Reading JSON that may be damaged: one kind of error, whatever is wrong."""

import os
from pathlib import Path
from typing import NotRequired, TypedDict

import pytest

from cache.support.json_file import DamagedFileError, parse_sealed_json, read_json, seal_json


class Facts(TypedDict):
    number: int
    words: NotRequired[list[str]]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'{"number": "1"}', b'{"number": true}', b'{"number": 1.5}', b'{"words": []}',
        b'{"number": 1, "words": [1]}', b'{"number": 1, "words": null}', b'\xff{"number": 1}', b"[" * 100_000,
        b'{"number": ' + b"9" * 5_000 + b"}", b'{"a":' * 50_000,
    ],
)  # fmt: skip
def test_whatever_is_wrong_gives_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"^facts\.json: "):
        read_json(path, Facts)


def test_a_long_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(b'{"number": 1}' + b" " * 100)
    assert read_json(path, Facts) == {"number": 1}
    with pytest.raises(DamagedFileError, match="longer than 100 bytes"):
        read_json(path, Facts, max_bytes=100)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "facts.json")
    with pytest.raises(DamagedFileError, match=r"facts\.json is not a file"):
        read_json(tmp_path / "facts.json", Facts)


def test_a_sealed_text_is_parsed_only_as_it_was_written() -> None:
    line = seal_json({"number": 1, "words": ["ä\udcff"]})
    assert parse_sealed_json(line, Facts) == {"number": 1, "words": ["ä\udcff"]}
    for other in (
        line + b"\n",
        line[:-1],
        line[1:],
        line.replace(b"1,", b"2,"),
        line.upper(),
        line.replace(b": 1", b":1"),
    ):
        with pytest.raises(DamagedFileError, match="not what its digest says"):
            parse_sealed_json(other, Facts)
    with pytest.raises(DamagedFileError, match="Expected `object`, got `array`"):
        parse_sealed_json(seal_json([]), Facts)


def test_names_that_are_no_unicode_survive(tmp_path: Path) -> None:
    """A path whose bytes are not UTF-8 has lone surrogates in it."""
    path = tmp_path / "facts.json"
    path.write_text('{"number": 1, "words": ["\\udcff"]}')
    assert read_json(path, Facts)["words"] == ["\udcff"]
