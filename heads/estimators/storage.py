"""Heads on disk: parameters in JSON, arrays in HDF5, and no pickle, so that reading executes nothing."""

import json
from pathlib import Path

import h5py

from cache.support.errors import UserError
from cache.support.files import replacing, write_text
from heads.estimators.base import Head
from heads.registry import make_head

PARAMETERS, ARRAYS = "head.json", "head.h5"


def save_head(head: Head, name: str, folder: Path) -> None:
    """Save a fitted head into a folder.

    Parameters
    ----------
    head : Head
    name : str
        Its name in the registry.
    folder : Path
    """
    with replacing(folder / ARRAYS) as temporary, h5py.File(temporary, "w") as file:
        for key, array in head.get_state().items():
            file.create_dataset(key, data=array)
    kept = {
        "head": name,
        "params": head.get_params(),
        "n_features": head.n_features_in_,
        "n_concepts": head.n_concepts_,
    }
    write_text(folder / PARAMETERS, json.dumps(kept, indent=1))


def load_head(folder: Path) -> Head:
    """Load a head that gives bit for bit the scores of the saved one.

    Raises
    ------
    UserError
        The folder holds no head, or a damaged one.
    """
    try:
        kept = json.loads((folder / PARAMETERS).read_text(encoding="utf-8"))
        head = make_head(kept["head"], kept["params"])
        with h5py.File(folder / ARRAYS, "r", locking=False) as file:
            state = {key: dataset[()] for key, dataset in file.items()}
        return head.set_state(state, kept["n_features"], kept["n_concepts"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: no finished head in it ({error}); train it again with `make head`") from error
