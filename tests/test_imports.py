"""Data flows one way, within `heads` too, and what needs no TensorFlow never loads it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from forks import run_fork

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"featurize": {"cache"}, "cache": set(), "heads": {"cache", "eval"}, "eval": {"cache.support"},
              "show": {"featurize", "cache", "heads", "eval"}}  # fmt: skip
"""What each package may import besides itself."""

FOLDERS = ["registry", "settings", "data", "decoders", "networks", "solvers", "estimators", "evaluation", "runs", "ensembles",
           "selection"]  # fmt: skip
"""The folders of `heads`, after two modules of the root; each may import those before it. The command line is last."""


def modules(package: str) -> dict[str, Path]:
    """The files of a package by their module's name."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports when it runs, at its top or inside a function."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []  # for the type checker alone
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def is_within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_before_it(package: str) -> None:
    known = {module for each in MAY_IMPORT for module in modules(each)}
    for path in modules(package).values():
        ours = imports(path) & known
        assert {name for name in ours if not is_within(name, MAY_IMPORT[package] | {package})} == set(), path


def test_a_folder_of_heads_imports_only_those_before_it() -> None:
    known = modules("heads")
    assert {name.split(".")[1] for name in known if "." in name} == {*FOLDERS, "__main__"}
    for name, path in known.items():
        if name not in ("heads", "heads.__main__"):
            before = FOLDERS[: FOLDERS.index(name.split(".")[1]) + 1]
            used = {each.split(".")[1] for each in imports(path) & set(known) if each != "heads"}
            assert used <= set(before), f"{name} imports {sorted(used - set(before))}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_module_imports_itself_in_a_circle(package: str) -> None:
    known = modules(package)
    edges = {name: imports(path) & set(known) - {name, package} for name, path in known.items()}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join((*trail[trail.index(name) :], name))
        for each in sorted(edges.pop(name, ())):
            visit(each, (*trail, name))

    for name in list(edges):
        visit(name, ())


def test_nobody_imports_the_bare_name_of_a_builtin() -> None:
    folders = (*MAY_IMPORT, "tests", "benchmarks")  # an environment may stand beside them under any name
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "eval" not in {alias.name for alias in node.names}, path


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_keras_and_tensorflow_are_imported_in_one_place(package: str) -> None:
    for path in modules(package).values():
        assert not {name for name in imports(path) if is_within(name, {"keras", "tensorflow"})}, path


def test_every_package_is_installed() -> None:
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {name.strip() for name in config["options"]["packages"].split(",")}
    tops = [path.parent for path in ROOT.glob("*/__init__.py")]
    here = {str(path.parent.relative_to(ROOT)) for top in tops for path in top.rglob("__init__.py")}
    assert listed == {name.replace("/", ".") for name in here}


@pytest.mark.parametrize(
    "code",
    [
        "import eval.__main__",
        "import heads.__main__, heads.runs.builder, heads.runs.submission, heads.registry; heads.registry.make_head('dense')",
        "import featurize.__main__, featurize.pipeline",
        "import cache.__main__, cache.store",
        "import show.__main__",
    ],
)
def test_commands_do_not_load_tensorflow_before_they_need_it(code: str) -> None:
    check = f"import sys; {code}; sys.exit(bool({{'tensorflow', 'keras', 'openvino'}} & set(sys.modules)))"
    assert run_fork(check, libraries=("heads.estimators.base",)).returncode == 0


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_help_loads_no_numeric_library(package: str) -> None:
    check = (
        f"import sys; sys.argv = ['x', '--help']; import runpy\n"
        f"try: runpy.run_module('{package}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'numpy', 'pandas', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
