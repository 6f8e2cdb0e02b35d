"""The weights of a backbone: Keras' ImageNet files, a file of the user, or random numbers from a seed.

Keras is imported inside the functions, because it takes seconds and a command with nothing to do does not need it.
"""

import contextlib
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.support.errors import ParameterError
from cache.support.files import digest_file
from cache.support.keras import import_keras
from featurize.file_kinds import describe_other_kind
from featurize.layer_matching import MismatchError, finish_layers, read_weights
from featurize.weights_file import check_file, open_models

REMEDY = (
    "name a file (--weights PATH.h5, .weights.h5 or .keras), use seeded random weights (--weights random:0), "
    "or run once where Keras can download them (--weights imagenet) and copy ~/.keras/models here"
)
"""Where weights can come from, as the last part of a message."""


def describe_weights(weights: str) -> str:
    """Identify the requested weights without loading them.

    Parameters
    ----------
    weights : str
        ``imagenet``, ``random:SEED`` or a path.

    Returns
    -------
    str
        ``imagenet``, ``random:SEED``, or ``sha256:`` and the digest of the file's bytes: a renamed file has the same
        weights, a changed file has other ones.

    Raises
    ------
    ParameterError
        It is none of the three, or the file is missing, damaged, or no weights of Keras.
    """
    if weights == "imagenet":
        return weights
    if weights.startswith("random:"):
        return f"random:{_seed(weights)}"
    path = Path(weights)
    if not path.is_file():
        kind = describe_other_kind(path) or "no such file"
        raise ParameterError(f"weights '{weights}': {kind}; expected imagenet, random:SEED or a file; {REMEDY}")
    check_file(path)
    return f"sha256:{digest_file(path).hex()}"


def load_weights(application: Callable[..., Any], weights: str, size: int) -> Any:
    """Build a Keras application without its top, with its weights.

    Parameters
    ----------
    application : callable
        Such as ``keras.applications.DenseNet121``.
    weights : str
        ``imagenet``, ``random:SEED`` or a path to a file in one of Keras' layouts, under any name: legacy (how the
        official ImageNet and the RadImageNet files come), ``.weights.h5`` or ``.keras``. The file may have more than
        the network: a top, an optimizer, models around it. Only arrays are read: nothing in it is executed.
    size : int
        Side of the input image, in pixels.

    Returns
    -------
    keras.Model

    Raises
    ------
    ParameterError
        The weights cannot be found or do not fit, or the network takes no image of that size.
    """
    describe_weights(weights)
    if weights == "imagenet":
        return _imagenet(application, size)
    keras = import_keras()
    if weights.startswith("random:"):
        # This also seeds the global generators of NumPy and Python.
        keras.utils.set_random_seed(_seed(weights))
    model = _build(application, size)
    if not weights.startswith("random:"):
        _read_file(model, weights, application.__name__)
    return model


def digest_weights(model: Any) -> str:
    """SHA-256 of a model's weights, as hexadecimal digits: shapes and float32 values, in Keras' order."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(repr(array.shape).encode() + array.astype("<f4").tobytes())
    return digest.hexdigest()


def copy_weights(source: Any, target: Any) -> None:
    """Give a network the weights of another of the same layers."""
    target.set_weights(source.get_weights())
    finish_layers(target)


def _seed(weights: str) -> int:
    text = weights.removeprefix("random:")
    if not text.isdecimal() or int(text) >= 2**32:
        raise ParameterError(
            f"weights '{weights}': expected random:SEED with a whole number below 2**32, such as random:0"
        )
    return int(text)


def _build(application: Callable[..., Any], size: int) -> Any:
    try:
        return application(include_top=False, weights=None, input_shape=(size, size, 3))
    except ValueError as error:
        raise ParameterError(f"{application.__name__} takes no image of {size} pixels: {error}") from error


def _imagenet(application: Callable[..., Any], size: int) -> Any:
    _build(application, size)  # a size that does not fit has its own message
    try:
        # Keras prints the progress of its download to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            return application(include_top=False, weights="imagenet", input_shape=(size, size, 3))
    # Keras raises a bare Exception when a download fails, and ValueError when its hash is wrong.
    except Exception as error:
        raise ParameterError(f"no ImageNet weights for {application.__name__} ({error}); {REMEDY}") from error


def _read_file(model: Any, path: str, name: str) -> None:
    try:
        with open_models(Path(path)) as models:
            read_weights(model, models)
    except MismatchError as error:
        raise ParameterError(
            f"weights '{path}' do not fit {name} without its top ({error}); "
            "expected the weights of this very network: name another BACKBONE or file"
        ) from error
