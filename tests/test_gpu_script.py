"""The script that proves a card runs on a CPU too, so that it is not broken when a card is at hand."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT


@pytest.mark.long
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
def test_every_part_of_the_script_runs_on_a_cpu() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--small", "--engine", "jax", "--seconds", "1000"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no part failed" in done.stdout
    assert "left out" not in done.stdout
    for figure in ("images/s from pixels in memory", "images/s by processes", "images/s with everything", "cosine 1.0000",
                   "the same fingerprint: True", "logistic, 600 x 32 x 8"):  # fmt: skip
        assert figure in done.stdout
