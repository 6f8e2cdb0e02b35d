"""Data flows one way, and what needs no TensorFlow never loads it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"featurize": {"cache"}, "cache": set(), "heads": {"cache", "eval"}, "eval": set()}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module))
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_before_it(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imports(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, path


def test_nobody_imports_the_bare_name_of_a_builtin() -> None:
    for path in ROOT.glob("*/**/*.py"):
        if path.is_relative_to(ROOT / ".venv"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "eval" not in {alias.name for alias in node.names}, path


def test_every_package_is_installed() -> None:
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {name.strip() for name in config["options"]["packages"].split(",")}
    here = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in ROOT.glob("*/**/__init__.py")}
    assert listed == {name for name in here if not name.startswith(".")}


@pytest.mark.parametrize(
    "code",
    [
        "import eval.__main__",
        "import heads.__main__, heads.runs.fit, heads.runs.submission, heads.estimators.dense; heads.estimators.base.make_head('dense')",
        "import featurize.__main__, featurize.pipeline",
        "import cache.__main__, cache.store",
    ],
)
def test_commands_do_not_load_tensorflow_before_they_need_it(code: str) -> None:
    check = f"import sys; import heads.estimators.base; {code}; sys.exit(bool({{'tensorflow', 'keras', 'openvino'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


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
