"""What a person looks at: what a run predicts for images, and where it sees it.

It stands on top of the other packages, and none of them imports it. Each command of ``python -m show`` is one module of
`show.commands`.
"""

from cache.support.lazy_names import lazy_names

__all__: list[str] = []

__getattr__, __dir__ = lazy_names(__name__, {"__version__": "cache.support.versions"})
