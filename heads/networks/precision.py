"""The arithmetic that training is done in, and the devices that do it. TensorFlow is imported inside the functions."""

from contextlib import AbstractContextManager
from typing import Any

from cache.support.command import muted_imports

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Keras' name for computing in a precision while weights and their steps stay float32."""

BFLOAT16_FROM, FLOAT16_FROM = (8, 0), (7, 0)
"""Compute capabilities from which a GPU has matrix units for these types: NVIDIA's mixed precision guide."""


def choose_precision(asked: str) -> str:
    """The precision that was asked for, or the fastest that every device has for ``auto``."""
    if asked != "auto":
        return asked
    with muted_imports():
        import tensorflow as tf
    gpus = tf.config.list_physical_devices("GPU")
    least = min((_capability(tf, gpu) for gpu in gpus), default=(0, 0))
    if least >= BFLOAT16_FROM:
        return "bfloat16"
    return "float16" if least >= FLOAT16_FROM else "float32"


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
