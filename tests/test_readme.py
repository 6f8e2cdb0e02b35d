"""The README's commands and its Python run as they stand, from a clone, on a small folder of images."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from pages import code_blocks

# These run in continuous integration, at full size, in `.ci/run`.
ELSEWHERE = {"make test"}

NEEDED = ("Makefile", "install.sh", "setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "recipes", "cache",
          "eval", "featurize", "heads", "show")  # fmt: skip
"""What the commands need of a clone. A clone that is in use may hold anything else, such as a folder of images."""


def commands() -> list[str]:
    """The lines of the README's shell blocks."""
    return [line for block in code_blocks("README.md", "sh") for line in block.splitlines()]


def make_clone(folder: Path) -> None:
    """Copy what the commands need."""
    folder.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(ROOT / name, folder)


def test_what_is_not_run_here_is_run_by_continuous_integration() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert set(script) >= ELSEWHERE
    assert "make submit" in script


def test_continuous_integration_runs_what_make_test_leaves_out() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.count("-m 'not long'") == makefile.count("-m pytest") == 1
    assert ".venv/bin/python -m pytest -q -m long" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.long
def test_everything_of_the_readme_runs(phantoms: Path, tmp_path: Path) -> None:
    environment = ROOT / ".venv"
    if not (environment / ".installed").exists():
        pytest.skip("needs the environment that `make setup` makes")
    clone = tmp_path / "clone"
    make_clone(clone)
    shutil.copytree(phantoms, clone / "my_images")
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # The environment is ours: make must not install the clone into it.
    keep = f"--old-file={environment / '.installed'}"
    settings = {"PATH": path, "VENV": str(environment), "MAKEFLAGS": keep, "PHANTOM_IMAGES": "40"}
    python = [["python", "-W", "error", "-c", block] for block in code_blocks("README.md", "python")]
    assert python
    for words in [*(["sh", "-c", line] for line in commands() if line not in ELSEWHERE), *python]:
        done = subprocess.run(words, cwd=clone, env=os.environ | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words[-1]}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("primary F1 ")
    for run in ("phantoms/kernel", "my_images/ensemble", "my_images/logistic"):
        assert (clone / "runs" / run / "submission.zip").exists()
