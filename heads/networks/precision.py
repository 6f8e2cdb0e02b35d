"""The arithmetic that training is done in, and the devices that do it. TensorFlow is imported inside the functions."""

from contextlib import AbstractContextManager
from typing import Any

from cache.support.command import muted_imports
from cache.support.devices import find_fastest_precision


def choose_precision(requested: str) -> str:
    """The requested precision, or for ``auto`` the fastest that every device has."""
    if requested != "auto":
        return requested
    with muted_imports():
        import tensorflow as tf
    return find_fastest_precision(_capability(tf, gpu) for gpu in tf.config.list_physical_devices("GPU"))


def _capability(tf: Any, gpu: Any) -> tuple[int, int]:
    found: tuple[int, int] = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return found


def on_all_devices() -> AbstractContextManager[Any]:
    """The scope in which a model has to be made to be trained on all GPUs, if there are several."""
    with muted_imports():
        import tensorflow as tf
    several = len(tf.config.list_logical_devices("GPU")) > 1
    strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    scope: AbstractContextManager[Any] = strategy.scope()
    return scope
