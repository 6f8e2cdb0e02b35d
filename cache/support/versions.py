"""Versions of installed libraries, recorded beside results."""

import importlib.metadata
import platform


def installed_versions(*names: str) -> dict[str, str]:
    """Versions of Python and of the given libraries, as far as they are installed; nothing is imported."""
    found = {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
    }
    return {"python": platform.python_version()} | {name: found[name] for name in names if name in found}
