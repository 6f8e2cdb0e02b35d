"""The network beside a store: built once, in a process of its own, and run by others from its files.

`cache.network_files` describes the folder. Adding images later needs neither the weights file nor, with OpenVINO,
TensorFlow: they do not wait for a network to be built.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.network_files import FRONT, TAIL, NetworkFiles, find_folder
from cache.store import FeatureStore
from cache.support.errors import ParameterError, StoreError
from cache.support.files import name_temporary, replace_folder, writing
from cache.support.reporting import report
from featurize.backbone import Backbone, Cut
from featurize.engines.base import Engine, FrontFiles
from featurize.isolated_process import call_isolated
from featurize.request import Request


@dataclass(frozen=True)
class Network:
    """A front that is ready to run. It is small and travels to worker processes, which open its files.

    Parameters
    ----------
    cut : Cut
        What is known of the front.
    engine : Engine
        What executes it.
    files : FrontFiles
    """

    cut: Cut
    engine: Engine
    files: FrontFiles

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        images : ndarray of uint8, shape (n_images, size, size, 3)

        Returns
        -------
        ndarray of float32, shape (n_images, n_features) or (n_images, height, width, n_features)
        """
        return self.engine.embed(images, self.files)

    def embed_batches(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Embed batches; see `featurize.engines.base.Engine.embed_batches`."""
        return self.engine.embed_batches(batches, self.files)

    def find_maps(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The maps of each layer before pooling; see `featurize.engines.base.Engine.find_maps`."""
        has_maps = len(self.cut.shape) > 1
        return [self.embed(images)] if has_maps else self.engine.find_maps(images, self.files, len(self.cut.layers))


Check = Callable[[Cut], None]
"""Raises a `UserError` if a network is not to be used. It travels to another process."""


def prepare_network(request: Request, engine: Engine, store: Path) -> Network:
    """Find the network beside a store, or build it there; see `preparing_network`."""
    with preparing_network(request, engine, store) as network:
        return network


@contextmanager
def preparing_network(request: Request, engine: Engine, store: Path, check: Check | None = None) -> Iterator[Network]:
    """Find the network beside a store, or build it there, for the block that makes the store.

    If the block fails, the store stays as it is. So does its network: an earlier one is put back. Where there was none,
    the new one stays, and the next run need not build it, unless the request itself was at fault.

    Parameters
    ----------
    request : Request
    engine : Engine
        From `featurize.engines.registry.choose_engine`.
    store : Path
    check : callable, optional
        Called with the cut before anything is written.

    Yields
    ------
    Network

    Raises
    ------
    ParameterError
        The request has an unknown value, or the weights cannot be found or do not fit.
    NotInstalledError
        TensorFlow, which builds the network, is not installed.
    UserError
        The folder cannot be written; or what `check` raises.
    """
    wanted = vars(request.backbone) | {"weights": request.weights_source} | engine.wanted
    network = _find(store, wanted, engine)
    if network is not None:
        if check:
            check(network.cut)
        yield network
        return
    folder = find_folder(store)
    report(f"building the network, once: it stays in {folder}")
    new = name_temporary(folder)
    try:
        args = request.backbone, engine, store, new, wanted, check
        # TensorFlow gives no memory back; where it is loaded already, another process would save nothing.
        is_loaded = "tensorflow" in sys.modules
        built = _build(*args) if is_loaded else call_isolated(_build, *args, task="builds the network")
        with writing(folder):
            earlier = replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    with _settling(folder, earlier):
        yield _to_network(replace(built, folder=folder), engine)


@contextmanager
def _settling(folder: Path, earlier: Path | None) -> Iterator[None]:
    """Put an earlier network back if the block fails, and remove it otherwise."""
    try:
        yield
    except BaseException as error:
        if earlier or isinstance(error, ParameterError):
            shutil.rmtree(folder, ignore_errors=True)
        if earlier:
            earlier.rename(folder)
        raise
    if earlier:
        shutil.rmtree(earlier, ignore_errors=True)


def open_network(store: FeatureStore, engine: Engine) -> Network:
    """Open the network that made a store, once its files have been checked.

    Parameters
    ----------
    store : FeatureStore
    engine : Engine
        The engine of the store's provenance.

    Raises
    ------
    StoreError
        The network is missing or damaged, or gives other features than the store holds.
    """
    files = NetworkFiles.read(store.path)
    files.check_provenance(store.provenance, store.weights_origin)
    for name in engine.files:
        files.check_file(name)
    return _to_network(files, engine)


def has_network(store: Path) -> bool:
    """Whether there is a whole network beside a store, whatever features it gives."""
    try:
        return NetworkFiles.read(store).is_whole()
    except StoreError:
        return False


def _find(store: Path, wanted: dict[str, Any], engine: Engine) -> Network | None:
    """The network beside a store, if it is the wanted one and whole."""
    try:
        files = NetworkFiles.read(store)
        is_wanted = files.wanted == wanted and {*engine.files} <= {*files.files}
        return _to_network(files, engine) if is_wanted and files.is_whole() else None
    except (StoreError, KeyError, TypeError):
        return None


def _to_network(files: NetworkFiles, engine: Engine) -> Network:
    tuples = {name: tuple(files.cut.get(name, ())) for name in ("shape", "widths")}
    cut = Cut(**{**files.cut, **tuples})
    return Network(cut, engine, FrontFiles(files.folder.absolute(), files.version))


def _build(
    backbone: Backbone, engine: Engine, store: Path, folder: Path, wanted: dict[str, Any], check: Check | None
) -> NetworkFiles:
    """Build the network of a store, check it, and write its files into a new folder, the facts last."""
    front = backbone.build(engine.layer_precision)
    if check:
        check(front.cut)
    with writing(find_folder(store)):
        folder.mkdir(parents=True)
        front.model.save(folder / FRONT)  # whatever the engine: a run is exported with it
        engine.prepare(front.model, folder)
        if front.tail is not None:
            front.tail.save(folder / TAIL)
        return NetworkFiles.write(folder, wanted, asdict(front.cut))
