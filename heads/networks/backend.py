"""What Keras heads share: Keras itself, imported late, its seed, and outputs that start at the training frequencies."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.command import muted_imports

RAREST = 1e-4
"""Frequency at which the outputs of a concept that is never or always shown start."""


def import_keras() -> Any:
    """Keras, without the greeting of its backend, nor its advice on how often functions are traced: once a fit."""
    with muted_imports():
        import keras
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Keras, which draws from global generators; Python's and NumPy's are put back afterwards."""
    before = random.getstate(), np.random.get_state()
    try:
        import_keras().utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def start_as_prior(outputs: Any, rate: NDArray[np.float32]) -> None:
    """Let an untrained layer of logits give the training frequencies, whatever it is shown.

    From 0.5 each, a short schedule ends before rare concepts have come down to theirs; see Lin et al., Focal
    Loss for Dense Object Detection, 2017, section 4.1.

    Parameters
    ----------
    outputs : keras.layers.Dense
        Built, with a bias.
    rate : ndarray of float32, shape (n_concepts,)
        Share of the training images that show each concept.
    """
    kernel, bias = outputs.get_weights()
    likely = np.clip(rate.astype(np.float64), RAREST, 1 - RAREST)
    outputs.set_weights([np.zeros_like(kernel), np.log(likely / (1 - likely)).astype(bias.dtype)])
