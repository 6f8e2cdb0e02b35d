"""One command for all stages, and one version."""

import subprocess
import sys
from collections.abc import Callable
from configparser import ConfigParser
from importlib import import_module
from pkgutil import resolve_name

import pytest
from conftest import ROOT

from cache.support.stages import STAGES, main


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_the_command_of_its_package(stage: str) -> None:
    ways = (["cache.support.stages", stage], [STAGES[stage][0]])
    words = ([sys.executable, "-m", *way, "--help"] for way in ways)
    one, other = (subprocess.run(each, cwd=ROOT, capture_output=True, check=True).stdout for each in words)
    assert one == other != b""


def test_a_stage_ends_as_its_command_ends(command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("cache.support.stages", "cache", "status", "nothing.h5")
    assert done.returncode == 1
    assert done.stderr.startswith("cache: error: nothing.h5: no such store")


def test_without_a_stage_they_are_listed_and_another_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2 : 2 + len(STAGES)]] == list(STAGES)
    with pytest.raises(SystemExit, match="no stage 'nosuch'; there are phantoms, featurize"):
        main(["nosuch"])


def test_every_package_has_the_version_that_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    version = resolve_name(config["metadata"]["version"].removeprefix("attr: ").replace(".__version__", ":__version__"))
    assert {import_module(name).__version__ for name in ("cache", "eval", "featurize", "heads")} == {version}
    main(["--version"])
    assert capsys.readouterr().out == f"radconcepts {version}\n"
    assert resolve_name(config["options.entry_points"]["console_scripts"].split(" = ")[1]) is main
