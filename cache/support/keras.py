"""Keras and TensorFlow, imported late, with the settings of this project whatever those of the user are.

Importing either takes seconds, and most commands need neither. Everything in the project imports them through the two
functions here, in worker processes too. The variables of the environment are as before once the import has ended.
"""

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from cache.support.command import muted_imports
from cache.support.errors import UserError
from cache.support.messages import describe_error

VARIABLES = {
    "KERAS_MAX_EPOCHS": None,
    "KERAS_MAX_STEPS_PER_EPOCH": None,
    "KERAS_NNX_ENABLED": None,
    "TF_USE_LEGACY_KERAS": None,
}
"""Variables of the environment that would change results, and the value that each has here; None removes it. Another
one is ``KERAS_BACKEND``, the backend that Keras computes with."""


ADDRESS_SPACE = 3 * 10**9
"""TensorFlow needs about as many bytes, and where a limit allows less it ends the process itself."""


def find_backend() -> str:
    """What Keras computes with: TensorFlow, or JAX where that is installed and TensorFlow is not."""
    has_only_jax = find_spec("jax") is not None and find_spec("tensorflow") is None
    return "jax" if has_only_jax else "tensorflow"


def import_keras(backend: str | None = None) -> Any:
    """Import Keras, and set what changes results: types, epsilon, the order of axes, limits of training.

    The settings are set again at every call, because a user may change them in between in the same process.

    Parameters
    ----------
    backend : str, optional
        ``tensorflow`` or ``jax``, for a process of its own; that of `find_backend` if not given.

    Returns
    -------
    module

    Raises
    ------
    NotInstalledError
        It is not installed.
    UserError
        This process has imported Keras with another backend, ``keras.json`` is invalid, or memory does not suffice.
    """
    expected = backend or find_backend()
    keras = _import("keras", expected)
    if keras.config.backend() != expected:
        raise UserError(
            f"Keras computes with the backend {keras.config.backend()} in this process, expected {expected}; import "
            f"Keras after this project, or set KERAS_BACKEND={expected} before"
        )
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    for limit in ("set_max_epochs", "set_max_steps_per_epoch"):  # Keras has them since version 3.11
        getattr(keras.config, limit, lambda none: None)(None)
    return keras


def import_tensorflow() -> Any:
    """Import TensorFlow with its start-up messages silenced.

    Returns
    -------
    module

    Raises
    ------
    NotInstalledError
        It is not installed.
    """
    return _import("tensorflow")


@contextmanager
def own_variables(backend: str = "tensorflow") -> Iterator[None]:
    """Set `VARIABLES`, and the backend, in the environment while the block runs.

    TensorFlow looks at some of them long after its import, where something first uses ``tf.keras``.
    """
    variables = VARIABLES | {"KERAS_BACKEND": backend}
    before = {name: os.environ.pop(name, None) for name in variables}
    os.environ.update({name: value for name, value in variables.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@cache
def _import(name: str, backend: str = "tensorflow") -> Any:
    _require_address_space()
    try:
        with muted_imports(), own_variables(backend):
            found = import_module(name)
    # What Keras reads while it is imported is its file of settings.
    except (ValueError, AttributeError, TypeError, OSError) as error:
        home = os.environ.get("KERAS_HOME", os.path.join("~", ".keras"))
        raise UserError(
            f"{name} cannot be imported ({describe_error(error)[:200]}); if Keras' settings are the reason, mend or "
            f"remove {os.path.join(home, 'keras.json')}"
        ) from error
    # TensorFlow warns about functions that are traced again: once per fit.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return found


def _require_address_space() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE:
        raise UserError(
            f"not enough memory: this process may take {limit / 1e9:.1f} GB (ulimit -v), TensorFlow needs "
            f"{ADDRESS_SPACE / 1e9:.0f} GB; raise the limit, or use a head without TensorFlow, such as kernel"
        )


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn off TensorFloat-32, TensorFlow's default on recent GPUs: float32 would be multiplied with three digits."""
    experimental = import_tensorflow().config.experimental
    before = experimental.tensor_float_32_execution_enabled()
    experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        experimental.enable_tensor_float_32_execution(before)
