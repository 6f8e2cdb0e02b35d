"""Checks of a request against features and labels, before anything is computed."""

import json
from typing import TYPE_CHECKING

from cache.support.errors import DataError, RunError, StoreError
from cache.support.messages import describe_error
from heads.data.folds import check_folds
from heads.data.split import LabelledSplit
from heads.data.types import Scores
from heads.registry import make_decoder
from heads.runs.request import BOTH, FOLDS, RunRequest

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head


def check_labels(request: RunRequest, decoder: "Decoder", train: LabelledSplit, valid: LabelledSplit | None) -> None:
    """Check that the labelled images suffice for a request.

    Parameters
    ----------
    request : RunRequest
    decoder : Decoder
        That of the request.
    train : LabelledSplit
    valid : LabelledSplit or None

    Raises
    ------
    DataError
        Valid is needed and missing, or there are too few images for folds.
    """
    by_folds = decoder.tuned and request.tune == FOLDS
    if decoder.tuned and not by_folds and not (valid and valid.readable.any()):
        raise DataError(f"decoder '{request.decoder}' is tuned on valid, which has no image that can be read; "
                        "tune by folds (TUNE=folds) or use fixed:0.3")  # fmt: skip
    if request.train == BOTH and valid is None:
        raise DataError(f"TRAIN={BOTH}: the store has no split 'valid'; use TRAIN=train")
    if by_folds or (request.nested and not decoder.tuned):
        check_folds(train.Y.shape[0], train.groups, nested=request.nested and decoder.tuned)
    if request.nested and decoder.tuned and not by_folds and valid:
        check_folds(valid.Y.shape[0], valid.groups)


def check_decoder_restores(decoder: "Decoder", text: str, scores: Scores) -> None:
    """Check that a fitted decoder will choose the same concepts once it is saved and loaded.

    Parameters
    ----------
    decoder : Decoder
    text : str
        Its name, with its value.
    scores : ndarray of float32, shape (n_images, n_concepts)
        Those of a few images.

    Raises
    ------
    RunError
        It will not; the message names the method that is at fault.
    """
    if not len(scores):
        return
    method = "get_state"
    try:
        state = json.loads(json.dumps(decoder.get_state()))
        method = "set_state"
        restored = make_decoder(text).set_state(state)
        method = "predict after set_state"
        predicted = restored.predict(scores)
    except Exception as error:
        raise RunError(f"decoder '{text}': cannot be saved and loaded: {method} fails "
                       f"({type(error).__name__}: {describe_error(error)})") from error  # fmt: skip
    if (predicted != decoder.predict(scores)).nnz:
        raise RunError(f"decoder '{text}': chooses other concepts once it is saved and loaded; get_state or set_state "
                       "leaves out something of what was fitted")  # fmt: skip


def check_kind(head: "Head", has_maps: bool, found: str) -> None:
    """Check that a head learns from what a store holds.

    Parameters
    ----------
    head : Head
    has_maps : bool
        Whether the store holds maps.
    found : str
        The beginning of the message: the store, and what it holds.

    Raises
    ------
    StoreError
        The head learns from maps and the store holds embeddings, or the other way round.
    """
    if head.takes_maps and not has_maps:
        raise StoreError(
            f"{found}, expected maps, because this head trains the layers after a cut; name a store that was made with "
            "POOLING=none LAYER=276"
        )
    if has_maps and not head.takes_maps:
        raise StoreError(
            f"{found}, expected embeddings; name a store that was made with POOLING=avg, or train the layers after the "
            "cut (HEAD=tail)"
        )
