"""What a worker of Dask loads before it starts, so that it embeds with the cheap network: ``dask worker --preload``.

The environment decides what is wrong with it: CHEAP_VERSION is another version of its engine, and CHEAP_KILLER a part of
the name of an image that ends its process.
"""

import os
import signal
import time
from typing import Any

import cheap

from cache.support import versions
from featurize import units
from featurize.cluster import worker
from featurize.engines.registry import Choice


def installed_versions(*names: str) -> dict[str, str]:
    return versions.installed_versions(*names) | {"tensorflow-cpu": os.environ["CHEAP_VERSION"]}


def embed_unit(network: Any, images: list[Any], *args: Any) -> Any:
    if any(os.environ["CHEAP_KILLER"] in str(image) for image in images):
        time.sleep(0.5)  # a nanny gives up a worker that ends as soon as it has started
        os.kill(os.getpid(), signal.SIGKILL)
    return units.embed_unit(network, images, *args)


worker.choose_engine = lambda *args: Choice(cheap.CheapEngine(n_gpus=0), "cheap")  # type: ignore[attr-defined]
if "CHEAP_VERSION" in os.environ:
    worker.installed_versions = installed_versions  # type: ignore[attr-defined]
if "CHEAP_KILLER" in os.environ:
    worker.embed_unit = embed_unit  # type: ignore[attr-defined]
