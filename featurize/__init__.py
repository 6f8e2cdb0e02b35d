"""Images to embeddings: find and decode them, run a frozen network once over each, write a feature store."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurize.backbone import Backbone
    from featurize.decoding.image import Unreadable, decode
    from featurize.embedder import Embedder
    from featurize.engines.base import Engine
    from featurize.engines.registry import ENGINES, choose_engine
    from featurize.phantoms.dataset import make_phantoms
    from featurize.pipeline import make_features
    from featurize.request import Request

_MODULES = {
    "__version__": "cache.support.versions",
    "ENGINES": "featurize.engines.registry",
    "Backbone": "featurize.backbone",
    "Embedder": "featurize.embedder",
    "Engine": "featurize.engines.base",
    "Request": "featurize.request",
    "Unreadable": "featurize.decoding.image",
    "choose_engine": "featurize.engines.registry",
    "decode": "featurize.decoding.image",
    "make_features": "featurize.pipeline",
    "make_phantoms": "featurize.phantoms.dataset",
}
"""The module of each public name. It is imported when it is first used, so that ``import featurize`` loads no NumPy."""

__all__ = [
    "ENGINES",
    "Backbone",
    "Embedder",
    "Engine",
    "Request",
    "Unreadable",
    "choose_engine",
    "decode",
    "make_features",
    "make_phantoms",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'featurize' has no attribute '{name}'")
    globals()[name] = found = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
