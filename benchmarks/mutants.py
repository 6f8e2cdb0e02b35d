"""Mutation testing: change one operator or number of the code at a time, and see whether a test fails.

A sample of the mutants of each folder is tried. A mutant that no test of its folder catches is printed as the line
that was changed. Each is tried in a copy of the project, by a process that has imported the large libraries already.
"""

import argparse
import ast
import contextlib
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import h5py  # noqa: F401
import pandas  # noqa: F401
import PIL.Image  # noqa: F401
import pytest
import scipy.sparse  # noqa: F401
import sklearn.linear_model  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent

TESTS = {
    "eval": "official submission scores rule traps compare labels labelled",
    "cache": "store verify status guard images duplicates history lock network_files parts maps features",
    "cache/support": "json_file commands spelling lock images store status parts network_files weights features",
    "heads/evaluation": "groups runs choosing",
    "heads/decoders": "decoders calibration groups estimators",
}
"""The tests of each folder: ``tests/test_NAME.py``. They run in this order until one fails."""

COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
            ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}  # fmt: skip

SECONDS = 300
"""A mutant that takes longer is caught: it does not end."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Parameters
    ----------
    path : str
        Relative to the project.
    line : int
    before, after : str
        The statement that is changed.
    source : str
        The whole file after the change.
    """

    path: str
    line: int
    before: str
    after: str
    source: str


def find_mutants(folder: str) -> list[Mutant]:
    """Every mutant of the modules in a folder."""
    mutants = []
    for path in sorted((ROOT / folder).glob("*.py")):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for number in range(sum(1 for _ in _find_changes(tree))):
            changed = copy.deepcopy(tree)
            statement, change = next(each for n, each in enumerate(_find_changes(changed)) if n == number)
            before = ast.unparse(statement)
            change()
            after = ast.unparse(statement)
            if before != after:
                name = str(path.relative_to(ROOT))
                mutants.append(Mutant(name, statement.lineno, *_shorten(before, after), ast.unparse(changed)))
    return mutants


def _find_changes(tree: ast.Module):  # type: ignore[no-untyped-def]
    """Each change, as the statement that it is in and a function that makes it; in a fixed order."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name == "__repr__":
            continue
        for statement in function.body:
            for inner in _statements(statement):
                yield from _changes_of(inner)


def _statements(statement: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return  # a function of its own
    yield statement
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield from _statements(child)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            for each in child.body:
                yield from _statements(each)


def _changes_of(statement: ast.stmt):  # type: ignore[no-untyped-def]
    """The changes of one statement without those in it. Texts and what only makes a message are left alone."""
    if isinstance(statement, ast.Raise | ast.Assert | ast.AnnAssign) or _is_message(statement):
        return
    for node in _expressions(statement):
        match node:
            case ast.Compare(ops=[op]) if type(op) in COMPARED:
                yield statement, lambda node=node: setattr(node, "ops", [COMPARED[type(node.ops[0])]()])
            case ast.BinOp(op=op) if type(op) in COMPUTED:
                yield statement, lambda node=node: setattr(node, "op", COMPUTED[type(node.op)]())
            case ast.BoolOp(op=op):
                other = ast.Or if isinstance(op, ast.And) else ast.And
                yield statement, lambda node=node, other=other: setattr(node, "op", other())
            case ast.UnaryOp(op=ast.Not()):
                yield statement, lambda node=node: setattr(node, "op", ast.UAdd())
            case ast.Constant(value=bool()):
                yield statement, lambda node=node: setattr(node, "value", not node.value)
            case ast.Constant(value=int() | float()):
                yield statement, lambda node=node: setattr(node, "value", node.value + 1)
            case ast.IfExp():
                yield statement, lambda node=node: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(statement, ast.If | ast.While):
        yield statement, lambda: setattr(statement, "test", ast.UnaryOp(ast.Not(), statement.test))
    if isinstance(statement, ast.Continue | ast.Break) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    ):
        # A statement cannot remove itself, so it becomes one without effect.
        def remove() -> None:
            statement.__class__ = ast.Pass
            statement._fields = ()

        yield statement, remove


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, without annotations, text and the statements in it."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.expr | ast.withitem | ast.keyword | ast.comprehension):
            yield from _nested(child)


def _nested(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.expr):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _nested(child)


def _is_message(statement: ast.stmt) -> bool:
    """Whether a statement only prints."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id="report" | "warn" | "print"))):
            return True
    return False


def _shorten(before: str, after: str) -> tuple[str, str]:
    """The line in which two statements differ."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), (before.splitlines()[0], "pass"))


def survives(mutant: Mutant, folder: str, place: Path) -> bool:
    """Whether all tests pass in a copy of the project with a mutant in it."""
    target = place / mutant.path
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant.source, encoding="utf-8")
    try:
        return _passes(folder, place)
    finally:
        target.write_text(original, encoding="utf-8")


def _passes(folder: str, place: Path) -> bool:
    """Run the tests of a folder in a child of this process."""
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(place)
        sys.path.insert(0, str(place))
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        files = [f"tests/test_{name}.py" for name in TESTS[folder].split()]
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={place}.tmp"]
        os._exit(int(pytest.main([*options, *files])))
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):  # what a failed test left running
            os.killpg(child, signal.SIGKILL)


def _try_all(place: Path, tasks, results) -> None:  # type: ignore[no-untyped-def]
    for folder, mutant in iter(tasks.get, None):
        results.put((folder, mutant, survives(mutant, folder, place)))


def main() -> None:
    """Print the survivors and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", default=list(TESTS), help="of these: " + ", ".join(TESTS))
    parser.add_argument("--sample", type=int, default=60, help="mutants per folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    chosen = []
    for folder in args.folders:
        mutants = find_mutants(folder)
        chosen += [(folder, each) for each in random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))]
        print(f"{folder}: {len(mutants):,} mutants", flush=True)
    context = get_context("fork")
    tasks, results = context.Queue(), context.Queue()
    with tempfile.TemporaryDirectory() as temporary:
        workers = []
        for number in range(args.workers):
            place = Path(temporary, str(number))
            shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".*", "__pycache__", "data", "runs"))
            workers.append(context.Process(target=_try_all, args=(place, tasks, results)))
            workers[-1].start()
        for each in chosen + [None] * args.workers:
            tasks.put(each)
        tried, caught = Counter(), Counter()
        for _ in chosen:
            folder, mutant, survived = results.get()
            tried[folder] += 1
            caught[folder] += not survived
            if survived:
                print(f"{mutant.path}:{mutant.line}: {mutant.before}  ->  {mutant.after}", flush=True)
        for worker in workers:
            worker.join()
    for folder in args.folders:
        print(f"{folder}: {caught[folder]} of {tried[folder]} caught")
    print(f"all: {caught.total()} of {tried.total()} caught ({caught.total() / tried.total():.0%})")


if __name__ == "__main__":
    main()
