"""Load the front and tail networks that `featurize` saved beside a store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.network_files import FRONT, REMEDY, NetworkFiles
from cache.store import FeatureStore
from cache.support.errors import StoreError
from cache.support.messages import describe_error
from heads.networks.backend import import_keras


@dataclass(frozen=True)
class StoredNetwork:
    """The front or the tail of the network beside a store.

    Parameters
    ----------
    path : Path
        A Keras model. The front takes uint8 images, shape (n_images, size, size, 3); the tail takes maps.
    digest : str
        SHA-256 of the file, as hexadecimal digits.
    size : int
        Side of an image, in pixels.
    shape : tuple of int
        Shape of what the store holds of an image.
    rounds : bool
        Whether the engine that made the store rounded more than the model's layers do.
    """

    path: Path
    digest: str
    size: int
    shape: tuple[int, ...]
    rounds: bool = False

    @classmethod
    def find(cls, store: FeatureStore, name: str = FRONT) -> "StoredNetwork":
        """Find the front or the tail of the network beside a store, and check it.

        Parameters
        ----------
        store : FeatureStore
        name : str
            `cache.network_files.FRONT`, or `cache.network_files.TAIL` where the store holds maps.

        Raises
        ------
        StoreError
            It is missing or damaged, or gives other features than the store holds.
        """
        files = NetworkFiles.read(store.path)
        path = files.check_file(name)
        files.check_provenance(store.provenance, store.weights_origin)
        shape = next(iter(store.splits.values())).embeddings.shape[1:]
        rounds = files.rounds_beyond_layers(store.provenance)
        return cls(path, files.files[name], store.provenance.size, shape, rounds)

    def load(self) -> Any:
        """Load the front as a Keras model. Nothing in the file is executed, whoever made it.

        Returns
        -------
        keras.Model

        Raises
        ------
        StoreError
            It is not a Keras model of Keras' own layers, or does not map the store's images to its features.
        """
        model = load_model(self.path)
        found = (model.inputs[0].dtype, *model.input_shape[1:], *model.output_shape[1:])
        if found != ("uint8", self.size, self.size, 3, *self.shape):
            raise StoreError(f"{self.path}: not the front of this store (it takes and gives {found}); {REMEDY}")
        return model


def load_model(path: Path) -> Any:
    """Load a Keras model that has Keras' own layers only.

    Returns
    -------
    keras.Model

    Raises
    ------
    StoreError
        The file is something else, or damaged.
    """
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Damage and malice make Keras fail in many ways.
    except Exception as error:
        why = describe_error(error)[:200]
        raise StoreError(f"{path}: not a Keras model of Keras' own layers ({why}); {REMEDY}") from error
