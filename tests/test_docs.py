"""The pages of documentation tell the truth: code runs, messages and options exist, links lead somewhere."""

import ast
import io
import json
import re
import statistics
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, warned
from pages import Block, blocks_with_output, read_page

from cache.support.versions import __version__
from heads.registry import DECODERS, HEADS, make_decoder, make_head
from show.commands import COMMANDS

PACKAGES = ("cache", "eval", "featurize", "heads", "show")
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)
GUIDES = ["README.md", "CONTRIBUTING.md", *(page for page in PAGES if re.fullmatch(r"docs/[^/]+", page))]
ANY = "…"
"""Stands in a quoted message for what differs from case to case."""


# --- the walk ----------------------------------------------------------------------------------------------------


def run_block(block: Block, names: dict[str, object]) -> str:
    """Run a block of code, or save it as the file that its first line names; gives what it printed."""
    file = re.match(r"# (\w+\.py)\n", block.code)
    if file:
        Path(file[1]).write_text(block.code)
        return ""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(block.code, names)
    return printed.getvalue()


def test_the_walk_runs_and_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # type: ignore[no-untyped-call]
    monkeypatch.setitem(HEADS, "linear", "set by the walk")
    blocks = blocks_with_output("docs/walk.md")
    names: dict[str, object] = {}
    for block in blocks:
        with warned() as lines:
            printed = run_block(block, names)
        assert all("never in train" in line for line in lines)
        if block.exact:
            assert printed == block.output
        else:  # the numbers of an example differ between machines
            assert printed.count("\n") == (block.output or "").count("\n")
    assert sum(block.exact for block in blocks) >= 4


# --- troubleshooting ---------------------------------------------------------------------------------------------


def quoted_messages() -> list[str]:
    """The messages in the first column of the tables of docs/troubleshooting.md."""
    return re.findall(r"^\| `(.+?)` \|", read_page("docs/troubleshooting.md"), re.MULTILINE)


def literals(code: str) -> Iterator[str]:
    """The texts in a module but docstrings, with `ANY` for each value in an f-string."""
    nodes = list(ast.walk(ast.parse(code)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values)


@cache
def texts_of_the_code() -> list[str]:
    """Every text of the source, the lines of the Makefile, and those of the set-up."""
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    texts = [text for path in modules for text in literals(path.read_text(encoding="utf-8"))]
    return texts + [line for name in ("Makefile", "install.sh") for line in read_page(name).splitlines()]


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_of_troubleshooting_occurs_in_the_code(message: str) -> None:
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in message.split(ANY)), re.DOTALL)
    assert any(pattern.search(text) for text in texts_of_the_code())


def test_troubleshooting_has_the_messages_that_people_meet() -> None:
    messages = quoted_messages()
    assert len(messages) >= 25
    assert len(set(messages)) == len(messages)


# --- options -----------------------------------------------------------------------------------------------------


def test_every_target_of_make_is_in_the_options() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", read_page("Makefile"), re.MULTILINE)
    options = read_page("docs/options.md")
    assert [name for name in targets if name != "help" and f"`{name}`" not in options] == []


def test_every_command_and_its_options_are_in_the_options() -> None:
    options = read_page("docs/options.md")
    code = {package: read_page(f"{package}/__main__.py") for package in PACKAGES}
    code |= {f"show {name}": read_page(f"show/commands/{name}.py") for name in COMMANDS}
    commands = [name for text in code.values() for name in re.findall(r"add_parser\(\s*\"(\w+)\"", text)]
    assert [name for name in [*commands, *COMMANDS] if f"| `{name} " not in options] == []
    flags = {flag for text in code.values() for flag in re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", text)}
    assert len(flags) > 20
    assert [flag for flag in sorted(flags) if not re.search(rf"{flag}\b", options)] == []


def test_every_head_its_defaults_and_every_decoder_are_in_the_options() -> None:
    options = read_page("docs/options.md")
    for name in HEADS:
        assert f"| `{name}` |" in options
    for name in ("kernel", "ridge", "logistic", "knn", "dense"):
        (row,) = re.findall(rf"^\| `{name}` \| `(.*?)`", options, re.MULTILINE)
        assert {key: _parse(value) for key, _, value in (pair.partition("=") for pair in row.split())} == (
            make_head(name).get_params()
        )
    for name in DECODERS:
        assert f"`{name}" in options


def _parse(value: str) -> object:
    """A default as the table has it: JSON or text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


# --- all pages ---------------------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            broken += [] if anchor in map(slug, headings) else [target]
    assert broken == []


def sentences(text: str) -> list[int]:
    """How many words each sentence has, of the running text of a page: no code, no tables, no headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line) for line in text.splitlines() if not re.match(r"    |\||#", line)]
    text = re.sub(r"\[(.*?)\]\(.*?\)|`.*?`|<.*?>", lambda match: match[1] or "x", "\n".join(lines))
    return [len(each.split()) for each in re.split(r"[.:;!?](?:\s|$)|\n", text) if len(each.split()) > 2]


@pytest.mark.parametrize("page", GUIDES)
def test_sentences_of_a_guide_are_short(page: str) -> None:
    assert statistics.median(sentences(read_page(page))) <= 15


def test_every_guide_is_in_the_index() -> None:
    index = read_page("docs/README.md")
    names = [page.removeprefix("docs/") for page in GUIDES if page.startswith("docs/") and page != "docs/README.md"]
    assert [name for name in names if f"]({name})" not in index] == []


# --- choosing, citation ------------------------------------------------------------------------------------------


def test_the_worked_example_of_choosing_is_what_the_decoder_does() -> None:
    rows = re.findall(r"^\| ([\d., ]+) \| (.*?) \| (.*?) \| (.*?) \| ", read_page("docs/choosing.md"), re.MULTILINE)
    assert len(rows) == 2
    for probabilities, *expected in rows:
        p = np.array([[float(each) for each in probabilities.split(",")]], np.float32)
        best = max(range(3), key=lambda k: float(expected[k].strip("*")))
        decoder = make_decoder("expected-f1").fit(p, np.zeros(p.shape))
        assert decoder.predict(p).sum() == best + 1
        assert [cell.startswith("**") for cell in expected] == [k == best for k in range(3)]
        for k, cell in enumerate(expected, 1):
            assert expected_f1(p[0], k) == pytest.approx(float(cell.strip("*")), abs=6e-4)


def expected_f1(p: np.ndarray, k: int) -> float:
    """The expected F1 of the first `k` concepts, over all sets of true concepts."""
    total = 0.0
    for number in range(2 ** len(p)):
        true = np.array([number >> at & 1 for at in range(len(p))], bool)
        total += float(np.where(true, p, 1 - p).prod()) * 2 * int(true[:k].sum()) / (k + int(true.sum()))
    return total


def test_the_citation_has_what_the_format_needs_and_the_version() -> None:
    text = read_page("CITATION.cff")
    fields = dict(re.findall(r"^([a-z-]+):[ ]*(.*)$", text, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "license"} <= set(fields)
    assert fields["version"] == __version__
    assert "\t" not in text
    depths = [len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()]
    assert all(deeper - depth <= 4 and not deeper % 2 for depth, deeper in pairwise(depths))


def test_the_citation_is_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load(read_page("CITATION.cff"))
    assert citation["references"][0]["title"]
    assert all({"family-names", "name"} & set(author) for author in citation["authors"])
