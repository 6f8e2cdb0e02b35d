"""Keras and TensorFlow, imported late, and how heads set them up: seed, precision, devices, first outputs."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.devices import find_fastest_precision
from cache.support.keras import full_precision as full_precision
from cache.support.keras import import_keras as import_keras  # for heads outside this project, too
from cache.support.keras import import_tensorflow as import_tensorflow

MIN_RATE = 1e-4
"""Smallest training frequency at which an output starts; 1 less this is the largest."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators, which Keras draws from; restores those of Python and NumPy at the end."""
    before = random.getstate(), np.random.get_state()
    try:
        import_keras().utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def start_as_prior(outputs: Any, rate: NDArray[np.float32]) -> None:
    """Set an untrained layer of logits so that every image gets the training frequencies.

    Keras starts every score near 0.5, and a short schedule ends before those of rare concepts have come down; see Lin
    et al., Focal Loss for Dense Object Detection, 2017, section 4.1.

    Parameters
    ----------
    outputs : keras.layers.Dense
        Built, with a bias.
    rate : ndarray of float32, shape (n_concepts,)
        Share of positive training images of each concept.
    """
    kernel, bias = outputs.get_weights()
    start = np.clip(rate.astype(np.float64), MIN_RATE, 1 - MIN_RATE)
    outputs.set_weights([np.zeros_like(kernel), np.log(start / (1 - start)).astype(bias.dtype)])


def choose_precision(requested: str) -> str:
    """The requested precision; for ``auto`` the fastest that all GPUs have."""
    if requested != "auto":
        return requested
    tf = import_tensorflow()
    return find_fastest_precision(_capability(tf, gpu) for gpu in tf.config.list_physical_devices("GPU"))


def _capability(tf: Any, gpu: Any) -> tuple[int, int]:
    found: tuple[int, int] = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return found


def on_all_devices() -> AbstractContextManager[Any]:
    """The scope in which to build a model that is trained on all GPUs, if there are several."""
    tf = import_tensorflow()
    several = len(tf.config.list_logical_devices("GPU")) > 1
    strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    scope: AbstractContextManager[Any] = strategy.scope()
    return scope
