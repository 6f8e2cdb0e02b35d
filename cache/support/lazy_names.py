"""Public names of a package, each imported when it is first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package, so that importing it imports nothing else.

    For editors and type checkers the package also imports its names within ``if TYPE_CHECKING``, and lists them in
    ``__all__``.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    modules : mapping of str to str
        Public name to the module that defines it.

    Returns
    -------
    tuple of two functions
        To assign to ``__getattr__`` and ``__dir__``.
    """
    namespace = vars(sys.modules[package])

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        namespace[name] = found = getattr(import_module(modules[name]), name)
        return found

    def list_names() -> list[str]:
        return sorted({*namespace, *modules})

    return get, list_names
