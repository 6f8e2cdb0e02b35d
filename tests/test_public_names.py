"""Each package has a list of public names, and importing it loads no large library."""

import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT

PACKAGES = ["cache", "eval", "heads", "show"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package: str) -> None:
    module = import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_large_library(package: str) -> None:
    check = f"import sys, {package}; sys.exit(bool({{'numpy', 'pandas', 'h5py', 'sklearn'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
