"""Heads on disk: parameters in JSON, arrays in HDF5. There is no pickle, so reading executes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from cache.support.errors import ParameterError, RunError, UserError
from cache.support.files import write_text
from cache.support.json_file import DamagedFileError, read_json
from cache.support.messages import describe_error
from heads.data.arrays import read_arrays, write_arrays
from heads.registry import make_head

if TYPE_CHECKING:
    from heads.estimators.base import Head

PARAMETERS, ARRAYS = "head.json", "head.h5"


class DescribedHead(TypedDict):
    """What ``head.json`` holds."""

    head: str
    """Its name in the registry."""
    params: dict[str, Any]
    n_features: int
    n_concepts: int


def save_head(head: "Head", name: str, folder: str | Path) -> None:
    """Save a fitted head into a folder.

    Parameters
    ----------
    head : Head
    name : str
        Its name in the registry.
    folder : str or Path

    Raises
    ------
    ParameterError
        It could not be loaded again, because its training has diverged.
    """
    state = head.get_state()
    try:
        make_head(name, head.get_params()).set_state(state, head.n_features_in_, head.n_concepts_)
    except DamagedFileError as error:
        raise ParameterError(f"{name}: training has diverged ({error}); choose a lower learning rate") from error
    write_arrays(Path(folder) / ARRAYS, state)
    described: DescribedHead = {
        "head": name,
        "params": head.get_params(),
        "n_features": head.n_features_in_,
        "n_concepts": head.n_concepts_,
    }
    write_text(Path(folder) / PARAMETERS, json.dumps(described, indent=1))


def check_restores(head: "Head", name: str, X: Any) -> None:
    """Check that a fitted head will score the same once it is saved and loaded, before more is computed with it.

    Parameters
    ----------
    head : Head
    name : str
        Its name in the registry.
    X : ndarray of float, shape (n_images, n_features), or Maps
        A few images to score.

    Raises
    ------
    RunError
        It will not; the message names the method that is at fault.
    ParameterError
        Its training has diverged.
    """
    expected = head.predict_proba(X)
    method = "get_state"
    state: dict[str, Any] = {}
    try:
        state = {key: np.asarray(value) for key, value in head.get_state().items()}
        odd = [key for key, value in state.items() if value.dtype.kind not in "biuf"]
        if odd:
            raise TypeError(f"'{odd[0]}' is no array of numbers")
        method = "get_params"
        params = json.loads(json.dumps(head.get_params()))
        method = "set_state (_restore)"
        restored = make_head(name, params).set_state(state, head.n_features_in_, head.n_concepts_)
        method = "predict_proba after set_state (_restore)"
        scores = restored.predict_proba(X)
    except Exception as error:
        if isinstance(error, UserError) and not all(np.isfinite(value).all() for value in state.values()):
            return  # it has diverged, and `save_head` says so
        raise RunError(f"head '{name}': {type(head).__name__} cannot be saved and loaded: {method} fails "
                       f"({type(error).__name__}: {describe_error(error)})") from error  # fmt: skip
    if not np.allclose(scores, expected, rtol=1e-4, atol=1e-6):
        raise RunError(f"head '{name}': {type(head).__name__} scores otherwise once it is saved and loaded; get_state "
                       "or set_state (_restore) leaves out something of what was learnt")  # fmt: skip


def load_head(folder: str | Path, n_concepts: int | None = None) -> "Head":
    """Load a head, whose scores are bit for bit those of the saved one.

    The files may come from a stranger: nothing in them is executed, and no size that they declare is believed.

    Parameters
    ----------
    folder : str or Path
    n_concepts : int, optional
        How many concepts the head must have.

    Raises
    ------
    RunError
        The folder has no head, a damaged one, or one of other concepts.
    """
    try:
        described = read_json(Path(folder) / PARAMETERS, DescribedHead)
        n_columns, n_features = described["n_concepts"], described["n_features"]
        if n_columns != (n_concepts or n_columns):
            raise DamagedFileError(f"{n_columns:,} concepts in the head, {n_concepts:,} in the vocabulary")
        if min(n_columns, n_features) < 1:
            raise DamagedFileError(f"a head of {n_features:,} features and {n_columns:,} concepts")
        head = make_head(described["head"], described["params"])
        return head.set_state(read_arrays(Path(folder) / ARRAYS), n_features, n_columns)
    # What a head refuses is a DamagedFileError or a ParameterError, and both are a ValueError.
    except (OSError, ValueError) as error:
        why = describe_error(error)
        raise RunError(f"{folder}: no finished head in it ({why}); train it again with `make head`") from error
