"""The README's commands run as they stand, from a clone, on a small folder of images."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

# These run in continuous integration, at full size, in `.ci/run`.
ELSEWHERE = {"make test"}


def commands() -> list[str]:
    """The lines of the README's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_what_is_not_run_here_is_run_by_continuous_integration() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert set(script) >= ELSEWHERE
    assert "make submit" in script


def test_every_command_of_the_readme_runs(phantoms: Path, tmp_path: Path) -> None:
    environment = ROOT / ".venv"
    if not (environment / ".installed").exists():
        pytest.skip("needs the environment that `make setup` makes")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "data", "runs", "*.egg-info", "__pycache__"))
    shutil.copytree(phantoms, clone / "my_images")
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # The environment is ours: make must not install the clone into it.
    keep = f"--old-file={environment / '.installed'}"
    settings = {"PATH": path, "VENV": str(environment), "MAKEFLAGS": keep, "PHANTOM_IMAGES": "40"}
    for line in commands():
        if line in ELSEWHERE:
            continue
        done = subprocess.run(
            line, shell=True, cwd=clone, env=os.environ | settings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (clone / "runs" / "kernel" / "submission.csv").exists()
    assert (clone / "runs" / "ensemble" / "submission.zip").exists()
    assert (clone / "runs" / "logistic" / "submission.zip").exists()
