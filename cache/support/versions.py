"""Versions of installed libraries, recorded beside results."""

import importlib.metadata
import platform


def installed_versions(*names: str) -> dict[str, str]:
    """The versions of Python and of those libraries that are installed, without importing any."""
    found = {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
    }
    return {"python": platform.python_version()} | {name: found[name] for name in names if name in found}
