"""The fuzz of every kind of file: a short run, and whether it would notice what it looks for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "fuzz.py"
CHEAP = ["labels", "submissions", "images", "dicom", "stores", "parts", "runs", "memo"]
"""All targets but weights, which need Keras."""


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)


def test_damage_of_any_file_is_found_or_harmless() -> None:
    pytest.importorskip("pydicom")
    done = run(SCRIPT, *CHEAP, "--inputs", "240", "--first", "1000000")
    assert done.returncode == 0, done.stdout + done.stderr
    for target in CHEAP:
        assert re.search(rf"^{target} +\d+ inputs +\d+ refused +\d+/s  0 findings$", done.stdout, re.MULTILINE)


BROKEN = """
import os, signal
from pathlib import Path
from cache.support.errors import UserError

class Broken:
    def prepare(self, folder): pass
    def open(self, folder): self.number = 0
    def attempt(self, folder, rng):
        self.number += 1
        match self.number:
            case 1: raise UserError("found")
            case 2: raise ValueError("a bug")
            case 3: return "other rows"
            case 4: (folder / "outside.h5").read_bytes()
            case 5: bytearray(1_700_000_000)
            case 6: raise UserError("two\\nlines")
            case 7: os.kill(os.getpid(), signal.SIGSEGV)
        return ""

TARGETS = {"labels": Broken}
def quiet(): pass
def make_outside(folder): (folder / "outside.h5").write_bytes(b"x")
"""


def test_the_fuzz_notices_what_it_looks_for(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path / "fuzz.py")
    (tmp_path / "fuzz_targets.py").write_text(BROKEN)
    done = run(tmp_path / "fuzz.py", "labels", "--inputs", "7")
    assert done.returncode == 1
    assert sorted(re.findall(r"^labels (\d): (\w+):", done.stdout, re.MULTILINE)) == [
        ("1", "exception"), ("2", "believed"), ("3", "outside"), ("4", "memory"), ("5", "message"), ("6", "crash"),
    ]  # fmt: skip
