"""The concepts of a cell, as people and programs write lists: ``C1;C2``, ``['C1', 'C2']``, ``C1|C2``, ``C1 C2``."""

import re
import sys

from cache.support.messages import quote

_CUI = re.compile(r"C\d+", re.IGNORECASE)
_LONG_CUI = re.compile(r"C\d{5,}", re.IGNORECASE)
"""A CUI that can be recognised within other text. A true one has seven digits."""

_PLAIN = re.compile(r"C\d+(?:;C\d+)*")
_BETWEEN = re.compile(r"[\s,;|；，、]+")
_QUOTES = "'\"`‘’“”"
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_LIST = re.compile(
    r"(?:(?:np\.|numpy\.)?(?:array|list|set|frozenset|tuple)\s*\((.*?)(?:,\s*dtype=[^)]*)?\)"
    r"|\[(.*)\]|\{(.*)\}|\((.*)\))",
    re.DOTALL,
)


def split_cell(cell: str) -> tuple[str, ...]:
    """The upper-case concepts of a cell, each once, in their order.

    Concepts may be written as a list of Python, NumPy or JSON. Between CUIs there may be semicolons, commas, bars or
    spaces. Other names of concepts are separated by semicolons alone, because they may contain the rest.

    Raises
    ------
    ValueError
        The cell has several CUIs and is no such list. The message says so.

    Examples
    --------
    >>> split_cell("c1; C2;"), split_cell("['C1' 'C2']"), split_cell("C1|C2, C3"), split_cell("[]")
    (('C1', 'C2'), ('C1', 'C2'), ('C1', 'C2', 'C3'), ())
    >>> split_cell("chest, lateral; CT")
    ('CHEST, LATERAL', 'CT')
    """
    if _PLAIN.fullmatch(cell):  # most cells are; the rest takes ten times as long
        # A million images share some thousand concepts, which need not be in memory for each of them.
        return tuple(dict.fromkeys(map(sys.intern, cell.split(";"))))
    text, is_list = _unwrap(cell)
    names = _split_cuis(text)
    if names is None and is_list:
        names = _split_quoted(text)
    if names is None and (not is_list or cell.strip().startswith("(")):
        names = _split(cell)
    if names is None or any(_has_several(name) for name in names):
        raise ValueError(f"{quote(cell)} is not a list of CUIs; expected one such as 'C0040405;C0817096'")
    return tuple(dict.fromkeys(name.upper() for name in names))


def has_cui(text: str) -> bool:
    """Whether a text is a CUI, or has one of full length in it.

    >>> has_cui("C1"), has_cui("img C0040405"), has_cui("Cuis")
    (True, True, False)
    """
    return bool(_CUI.fullmatch(text.strip()) or _LONG_CUI.search(text))


def describe_dialect(concept: str) -> str:
    """Why a concept, as the evaluator reads it, is rather a list of several; empty if it is not.

    >>> describe_dialect("['C0040405', 'C0817096']")
    'a list in brackets'
    >>> describe_dialect("C0040405 C0817096"), describe_dialect("C0040405")
    ('several CUIs', '')
    """
    if _CUI.fullmatch(concept):
        return ""
    text, is_list = _unwrap(concept)
    cuis = _split_cuis(text)
    if (is_list and cuis) or ("[" in concept and has_cui(concept)):
        return "a list in brackets"
    if cuis:
        return "several CUIs" if len(cuis) > 1 else "a CUI in quotes"
    return "several CUIs" if _has_several(concept) else ""


def _unwrap(cell: str) -> tuple[str, bool]:
    """What is within the brackets of a list, and whether there are any."""
    text, is_list = cell.strip(), False
    while found := _LIST.fullmatch(text):
        text, is_list = next(group for group in found.groups() if group is not None).strip(), True
    return text, is_list


def _split_cuis(text: str) -> list[str] | None:
    """The CUIs of a text; None if there is anything else in it."""
    tokens = [token.strip(_QUOTES) for token in _BETWEEN.split(text)]
    tokens = [token for token in tokens if token]
    return tokens if all(_CUI.fullmatch(token) for token in tokens) else None


def _split_quoted(text: str) -> list[str] | None:
    """Names in quotes, within brackets; None if there is anything else but separators."""
    items = [single or double for single, double in _QUOTED.findall(text)]
    rest = _BETWEEN.sub("", _QUOTED.sub("", text))
    return (
        None if rest or any(each in "".join(items) for each in "[]{}") else [n for item in items for n in _split(item)]
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _has_several(concept: str) -> bool:
    return len(_LONG_CUI.findall(concept)) > 1 or ("[" in concept and has_cui(concept))
