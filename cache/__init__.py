"""The feature store: one HDF5 file between the frozen network and the heads.

It holds embeddings and where they come from. It holds no labels, because they change with every edition, and no
network.
"""

from typing import TYPE_CHECKING

from cache.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from cache.duplicates import find_duplicates
    from cache.images import find_images
    from cache.join import join_stores
    from cache.provenance import Provenance
    from cache.status import describe_store
    from cache.store import FeatureStore, Split
    from cache.support.errors import DataError, NotInstalledError, ParameterError, RunError, StoreError, UserError
    from cache.support.reporting import DataWarning
    from cache.verify import verify_store

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
    "join_stores",
    "verify_store",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "__version__": "cache.support.versions",
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
        "join_stores": "cache.join",
        "verify_store": "cache.verify",
    },
)
