"""The version of this project, and those of installed libraries, which are recorded beside results."""

import platform

__version__ = "0.1.0"


def installed_versions(*names: str) -> dict[str, str]:
    """Versions of Python and of the given libraries, as far as they are installed; nothing is imported."""
    import importlib.metadata

    found = {
        each.metadata["Name"].lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()
    }
    return {"python": platform.python_version()} | {name: found[name] for name in names if name in found}
