"""The feature store: one HDF5 file between the frozen network and the heads.

It holds embeddings and where they come from. It holds no labels, because they change with every edition, and no
network.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.duplicates import find_duplicates
    from cache.images import find_images
    from cache.provenance import Provenance
    from cache.status import describe_store
    from cache.store import FeatureStore, Split
    from cache.support.errors import DataError, NotInstalledError, ParameterError, RunError, StoreError, UserError
    from cache.support.reporting import DataWarning
    from cache.verify import verify_store

_MODULES = {
    "DataError": "cache.support.errors",
    "DataWarning": "cache.support.reporting",
    "FeatureStore": "cache.store",
    "NotInstalledError": "cache.support.errors",
    "ParameterError": "cache.support.errors",
    "Provenance": "cache.provenance",
    "RunError": "cache.support.errors",
    "Split": "cache.store",
    "StoreError": "cache.support.errors",
    "UserError": "cache.support.errors",
    "describe_store": "cache.status",
    "find_duplicates": "cache.duplicates",
    "find_images": "cache.images",
    "verify_store": "cache.verify",
}
"""Where each public name stands. It is imported when it is first used, so that ``import cache`` loads no NumPy."""

__all__ = [
    "DataError",
    "DataWarning",
    "FeatureStore",
    "NotInstalledError",
    "ParameterError",
    "Provenance",
    "RunError",
    "Split",
    "StoreError",
    "UserError",
    "describe_store",
    "find_duplicates",
    "find_images",
    "verify_store",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'cache' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
