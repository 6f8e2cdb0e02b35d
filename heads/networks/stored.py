"""The network of a store, front and tail, as the Keras models that whoever made the features has left beside it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.store import FeatureStore
from cache.support.errors import UserError
from cache.support.files import digest_file
from cache.support.messages import describe_error
from heads.networks.backend import import_keras

FACTS, FRONT, TAIL = "network.json", "front.keras", "tail.keras"

WAY_OUT = "copy the folder from where the features were made, or build it again with `make features REBUILD=1`"


@dataclass(frozen=True)
class KeptNetwork:
    """One half of a network, whole and of the features of its store.

    Parameters
    ----------
    path : Path
        The Keras model. Of a front, from uint8 images ``(n, size, size, 3)`` to features; of a tail, from maps on.
    digest : str
        SHA-256 of the file.
    size : int
        Side of an image, in pixels.
    shape : tuple of int
        Of what the store holds of an image.
    """

    path: Path
    digest: str
    size: int
    shape: tuple[int, ...]

    @classmethod
    def find(cls, store: FeatureStore, name: str = FRONT) -> "KeptNetwork":
        """Find a half of the network beside a store, in ``STORE.network/``: `FRONT` or, where it holds maps, `TAIL`.

        Raises
        ------
        UserError
            It is missing or damaged, or it gives other features than the store holds.
        """
        folder = store.path.with_name(store.path.name + ".network")
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no network beside the store; {WAY_OUT}")
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            digest = str(facts["files"][name])
            made = facts["wanted"] | facts["cut"] | {"backbone": facts["wanted"]["name"]}
            held = {fact: made[fact] for fact in ("backbone", "weights", "layer", "pooling", "size", "preprocessing")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: a damaged network ({describe_error(error)}); {WAY_OUT}") from error
        if digest_file(folder / name).hex() != digest:
            raise UserError(f"{folder}: a damaged network ({name} is not what was written); {WAY_OUT}")
        wanted = asdict(store.provenance)
        differences = [f"{fact} {held[fact]}, not {wanted[fact]}" for fact in held if held[fact] != wanted[fact]]
        if differences:
            raise UserError(f"{folder}: the network of other features ({'; '.join(differences)}); {WAY_OUT}")
        shape = next(iter(store.splits.values())).embeddings.shape[1:]
        return cls(folder / name, digest, store.provenance.size, shape)

    def load(self) -> Any:
        """The front as a Keras model. Whoever made the file, nothing of it is executed.

        Raises
        ------
        UserError
            It is no Keras model of Keras' own layers, or not from such images to such features.
        """
        model = load_model(self.path)
        found = (model.inputs[0].dtype, *model.input_shape[1:], *model.output_shape[1:])
        if found != ("uint8", self.size, self.size, 3, *self.shape):
            raise UserError(f"{self.path}: not the front of this store (it takes and gives {found}); {WAY_OUT}")
        return model


def load_model(path: Path) -> Any:
    """Load a Keras model of Keras' own layers alone.

    Raises
    ------
    UserError
        It is something else, or damaged.
    """
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Damage and malice make Keras fail in many ways.
    except Exception as error:
        why = describe_error(error)[:200]
        raise UserError(f"{path}: not a Keras model of Keras' own layers ({why}); {WAY_OUT}") from error
