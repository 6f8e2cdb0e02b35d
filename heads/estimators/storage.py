"""Heads on disk: parameters in JSON, arrays in HDF5. There is no pickle, so reading executes nothing."""

import json
from pathlib import Path

from cache.support.errors import RunError
from cache.support.files import write_text
from heads.data.arrays import read_arrays, write_arrays
from heads.estimators.base import Head
from heads.registry import make_head

PARAMETERS, ARRAYS = "head.json", "head.h5"


def save_head(head: Head, name: str, folder: str | Path) -> None:
    """Save a fitted head into a folder.

    Parameters
    ----------
    head : Head
    name : str
        Its name in the registry.
    folder : str or Path
    """
    write_arrays(Path(folder) / ARRAYS, head.get_state())
    described = {
        "head": name,
        "params": head.get_params(),
        "n_features": head.n_features_in_,
        "n_concepts": head.n_concepts_,
    }
    write_text(Path(folder) / PARAMETERS, json.dumps(described, indent=1))


def load_head(folder: str | Path) -> Head:
    """Load a head, whose scores are bit for bit those of the saved one.

    Raises
    ------
    RunError
        The folder has no head, or a damaged one.
    """
    try:
        described = json.loads((Path(folder) / PARAMETERS).read_text(encoding="utf-8"))
        head = make_head(described["head"], described["params"])
        state = read_arrays(Path(folder) / ARRAYS)
        return head.set_state(state, described["n_features"], described["n_concepts"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{folder}: no finished head in it ({error}); train it again with `make head`") from error
