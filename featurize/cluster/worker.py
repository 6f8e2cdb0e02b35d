"""What a worker of a cluster does: describe what decides its numbers, take the network, embed units.

A process embeds nothing before it has taken the network, which it only gets once its description has been checked. So
a worker that is started anew at an earlier one's address is checked, too.
"""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import current_process
from pathlib import Path

from cache.remote_path import AnyPath
from cache.support.errors import UserError
from cache.support.files import replacing
from cache.support.messages import describe_error
from cache.support.versions import __version__, installed_versions
from featurize.decoding.image import DECODING, RESIZING
from featurize.decoding.packages import DISTRIBUTIONS
from featurize.engines.registry import Choice, choose_engine
from featurize.prepared_network import Network
from featurize.units import Unit, embed_unit

LIBRARIES = ("numpy", "pillow", *DISTRIBUTIONS)
"""The packages that decode and resize."""

_CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"

_taken: dict[str, Network] = {}
"""The networks that this process may run, by the version of their files."""


@dataclass(frozen=True)
class Description:
    """What decides the numbers that a worker computes.

    Parameters
    ----------
    choice : Choice or None
        The engine that it has for the request; None if it has none.
    fault : str
        Why it has none, or cannot be used.
    versions : mapping of str to str
        Versions of this project and of the packages that decode and embed.
    decoding, resizing : str
        Versions of the decoder.
    gpu : str
        The machine and the GPU that it uses; empty if it uses none.
    """

    choice: Choice | None
    fault: str
    versions: Mapping[str, str]
    decoding: str = DECODING
    resizing: str = RESIZING
    gpu: str = ""

    def find_difference(self, other: "Description") -> str:
        """How a worker differs from another one in what decides numbers; empty if it does not."""
        if self.fault or self.choice is None or other.choice is None:
            return self.fault
        pairs = {
            "engine": [each.choice.engine.name for each in (self, other) if each.choice],
            "precision": [each.choice.engine.precision for each in (self, other) if each.choice],
            "device": ["a GPU" if each.gpu else "the CPU" for each in (self, other)],
            "decoding": [self.decoding, other.decoding],
            "resizing": [self.resizing, other.resizing],
        }
        for name in sorted({*self.versions, *other.versions}):
            pairs[name] = [each.versions.get(name, "missing") for each in (self, other)]
        return ", ".join(f"{name} {mine}, not {others}" for name, (mine, others) in pairs.items() if mine != others)


def describe_worker(engine: str, precision: str) -> Description:
    """Describe this worker.

    Parameters
    ----------
    engine, precision : str
        As `featurize.engines.registry.choose_engine` takes them.
    """
    devices = os.environ.get(_CUDA_DEVICES, "")
    if devices:
        os.environ[_CUDA_DEVICES] = devices.split(",")[0]  # the first is its own; dask-cuda lists the others behind it
    try:
        choice = choose_engine(engine, precision)
    except UserError as error:
        return Description(None, str(error), {})
    names = (*LIBRARIES, *choice.engine.distributions)
    versions = installed_versions(*names) | {"radconcepts": __version__}
    del versions["python"]  # which is compared apart, without its last number
    fault, gpu = "", ""
    if choice.engine.n_gpus > 1:
        fault = (
            f"sees {choice.engine.n_gpus} GPUs, expected one: start a worker per GPU, with dask-cuda or with "
            f"{_CUDA_DEVICES}"
        )
    elif choice.engine.n_gpus:
        gpu = f"GPU {devices.split(',')[0] or 0} of {socket.gethostname()}"
    return Description(choice, fault, versions, gpu=gpu)


def take_network(network: Network, contents: Mapping[str, bytes], digests: Mapping[str, str], image: AnyPath) -> str:
    """Take the network that this worker is to run, if it sees the images.

    Parameters
    ----------
    network : Network
        It names the files in the coordinator's folder.
    contents : mapping of str to bytes
        The files that the engine runs.
    digests : mapping of str to str
        Their SHA-256.
    image : Path or RemotePath
        One of the images.

    Returns
    -------
    str
        Why not; empty if it has taken the network.
    """
    from distributed import get_worker

    try:
        with image.open("rb") as file:
            file.read(1)
    except (OSError, UserError) as error:
        return f"does not see the images ({describe_error(error)}); they must have the same path or URL everywhere"
    folder = Path(get_worker().local_directory) / f"network-{network.files.version[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != digests[name]:
                return f"got a damaged {name}; run the same command again"
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
    except (OSError, UserError) as error:
        return f"cannot write its network ({describe_error(error)})"
    _taken[network.files.version] = replace(network, files=replace(network.files, folder=folder))
    return ""


@dataclass(frozen=True)
class NotTaken:
    """In place of a unit: the worker at this address has not taken the network, so it was not checked."""

    worker: str


def embed_if_taken(version: str, images: list[AnyPath], size: int, dtype: str) -> Unit | NotTaken:
    """Embed some images, if this process has taken the network of this version; see `featurize.units.embed_unit`."""
    from distributed import get_worker

    network = _taken.get(version)
    if network is None:
        return NotTaken(get_worker().address)
    # Dask's nannies start workers as daemons, which may have no children.
    n_processes = 0 if current_process().daemon else network.engine.decoders
    return embed_unit(network, images, size, dtype, network.engine.threads, n_processes)
