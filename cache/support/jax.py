"""JAX, imported late: it takes a second, and most commands do not need it."""

import os
from typing import Any

from cache.support.command import muted_imports


def import_jax() -> Any:
    """Import JAX, which then takes a GPU's memory as it needs it and not three quarters of it at once.

    Raises
    ------
    NotInstalledError
        It is not installed.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with muted_imports():
        import jax
        import jax.export

    return jax


def list_gpus() -> list[Any]:
    """The GPUs that JAX can use; none where it was installed for CPUs alone.

    Raises
    ------
    NotInstalledError
        It is not installed.
    """
    try:
        found: list[Any] = import_jax().local_devices(backend="gpu")
    except RuntimeError:
        return []
    return found
