"""The contract of ``STORE.network/``: the frozen network beside a store, as files.

    front.keras     from uint8 images to what the store holds of them, a Keras model
    tail.keras      what follows the cut, where the store holds maps, a Keras model
    other files     what an engine runs in place of front.keras, such as OpenVINO's front.xml and front.bin
    network.json    the facts, written last: a folder without them is unfinished

The facts are three mappings: ``wanted``, the part of the request that decides the files; ``cut``, what is known of the
network since it was built; ``files``, the SHA-256 of every file. `featurize` writes the folder, heads read it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from cache.provenance import Provenance, WeightsOrigin
from cache.support.errors import StoreError
from cache.support.files import digest_file, write_text
from cache.support.json_file import check_type, read_json
from cache.support.messages import describe_error

FRONT, TAIL, FACTS = "front.keras", "tail.keras", "network.json"

REMEDY = "copy the folder from where the features were made, or build it again with `make features REBUILD=1`"
"""What to do about a network that is missing or damaged."""


def find_folder(store: Path) -> Path:
    """The folder of a store's network."""
    return store.with_name(store.name + ".network")


class _Wanted(TypedDict):
    """What decides the features."""

    name: str
    weights: str
    size: int
    pooling: str


class _Cut(TypedDict):
    """What is known of a network since it was built."""

    weights: str
    layer: str
    preprocessing: str
    shape: list[int]
    widths: NotRequired[list[int]]


class _Facts(TypedDict):
    """What must be in `FACTS`; there may be more."""

    wanted: _Wanted
    cut: _Cut
    files: dict[str, str]


@dataclass(frozen=True)
class NetworkFiles:
    """The facts of a network beside a store.

    Parameters
    ----------
    folder : Path
    wanted : mapping of str to object
        What decides the files: the backbone (``name``, ``weights``, ``size``, ``layer``, ``pooling``), the ``engine``,
        the precision of the Keras layers (``layers``), and what else the engine needs.
    cut : mapping of str to object
        What is known since the network was built: ``layer``, ``preprocessing``, ``shape``, the digest of the
        ``weights``, and, of several layers, the ``widths``.
    files : mapping of str to str
        SHA-256 of each file, as hexadecimal digits.
    """

    folder: Path
    wanted: Mapping[str, Any]
    cut: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def read(cls, store: Path) -> "NetworkFiles":
        """Read the facts of the network beside a store.

        Raises
        ------
        StoreError
            There is no network, or its facts are damaged.
        """
        folder = find_folder(store)
        if not folder.is_dir():
            raise StoreError(f"{folder}: no network beside the store; {REMEDY}")
        try:
            facts = read_json(folder / FACTS, dict[str, Any])
            check_type(facts, _Facts)
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: a damaged network ({describe_error(error)}); {REMEDY}") from error
        return cls(folder, facts["wanted"], facts["cut"], facts["files"])

    @classmethod
    def write(cls, folder: Path, wanted: Mapping[str, Any], cut: Mapping[str, Any]) -> "NetworkFiles":
        """Digest the files of a folder and write the facts beside them."""
        files = {path.name: digest_file(path).hex() for path in sorted(folder.iterdir())}
        written = cls(folder, dict(wanted), dict(cut), files)
        facts = {"wanted": written.wanted, "cut": written.cut, "files": written.files}
        write_text(folder / FACTS, json.dumps(facts, indent=1))
        return written

    @property
    def version(self) -> str:
        """Digest of all files: another one whenever a network is built."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()

    def is_whole(self) -> bool:
        """Whether every file is there, byte for byte."""
        try:
            return all(self._digest(name) == digest for name, digest in self.files.items())
        except (OSError, ValueError):  # a name in a file may be none
            return False

    def check_file(self, name: str) -> Path:
        """The path of a file, once its bytes have been checked.

        Raises
        ------
        StoreError
            The file is missing, or its bytes are not those that were written.
        """
        path = self.folder / name
        if not path.is_file():
            raise StoreError(f"{self.folder}: no network beside the store ({name} is missing); {REMEDY}")
        if self._digest(name) != self.files.get(name):
            raise StoreError(f"{self.folder}: a damaged network ({name} is not what was written); {REMEDY}")
        return path

    def check_provenance(self, provenance: Provenance, origin: WeightsOrigin) -> None:
        """Check that the network gives the features of a store.

        Parameters
        ----------
        provenance : Provenance
            That of the store.
        origin : WeightsOrigin
            Where the weights came from that made the store.

        Raises
        ------
        StoreError
            It gives others; the message has each fact with both values.
        """
        own = WeightsOrigin(origin.name if self._source == origin.source else "", self._source)
        differences = replace(provenance, **self._provenance()).differences(provenance, (own, origin))
        if differences:
            raise StoreError(f"{self.folder}: the network of other features ({'; '.join(differences)}); {REMEDY}")

    def rounds_beyond_layers(self, provenance: Provenance) -> bool:
        """Whether the engine of a store rounded more than the network's Keras layers do.

        TensorFlow's lower precision is that of the layers. OpenVINO runs float32 layers in a precision of its own. So
        the engine rounds by itself where its precision is not that of the layers.
        """
        return provenance.precision not in ("float32", self.wanted.get("layers", "float32"))

    @property
    def _source(self) -> str:
        """Where the weights came from, as `cache.provenance.WeightsOrigin` has it."""
        source: str = self.wanted["weights"]
        return source

    def _provenance(self) -> dict[str, Any]:
        """The facts of a provenance that the files decide."""
        named = {"backbone": self.wanted["name"], "pooling": self.wanted["pooling"], "size": self.wanted["size"]}
        return named | {fact: self.cut[fact] for fact in ("weights", "layer", "preprocessing")}

    def _digest(self, name: str) -> str:
        return digest_file(self.folder / Path(name).name).hex()  # a name in a file may lead elsewhere
