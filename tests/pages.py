"""The pages of documentation: their blocks of code, and the output that stands below a block."""

import re
from dataclasses import dataclass

from conftest import ROOT

EXACT, EXAMPLE = "It prints:", "It prints, for example:"
"""The line between a block of code and its output: whether the output is the same everywhere."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    Parameters
    ----------
    language : str
        Such as ``python`` or ``sh``.
    code : str
    output : str or None
        The block of text that follows, if a line between says that the code prints it.
    exact : bool
        Whether the output is the same everywhere.
    """

    language: str
    code: str
    output: str | None = None
    exact: bool = False


def read_page(name: str) -> str:
    """The text of a page, by its path from the root of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(name: str, language: str) -> list[str]:
    """The blocks of code of a page in a language."""
    return [match[2] for match in _BLOCK.finditer(read_page(name)) if match[1] == language]


def blocks_with_output(name: str) -> list[Block]:
    """The blocks of Python in a page, each with the output that is said to follow."""
    text = read_page(name)
    found = list(_BLOCK.finditer(text))
    blocks = []
    for match, follower in zip(found, [*found[1:], None], strict=True):
        between = text[match.end() : follower.start()].strip() if follower else ""
        is_output = follower is not None and follower[1] == "text" and between in (EXACT, EXAMPLE)
        output = follower[2] if follower and is_output else None
        if match[1] == "python":
            blocks.append(Block("python", match[2], output, between == EXACT))
    return blocks
