"""Losses for many rare concepts, as Keras expects them: from logits, the mean over concepts for each image."""

from collections.abc import Callable
from typing import Any

from cache.support.errors import ParameterError
from heads.data.validation import check_number
from heads.networks.backend import import_keras

LOSSES = ("cross-entropy", "focal", "asymmetric")

MIN_BASE = 1e-8
"""Smallest base of the power in the asymmetric loss: with an exponent below 1 the slope at zero is infinite."""

Loss = Callable[[Any, Any], Any]
"""From ``y_true`` and logits, both (n_images, n_concepts), to (n_images,)."""


def make_loss(
    name: str,
    *,
    gamma: float = 2.0,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
    label_smoothing: float = 0.0,
) -> Loss:
    """Make a loss from its name.

    Parameters
    ----------
    name : {"cross-entropy", "focal", "asymmetric"}
    gamma : float
        Focal loss: how strongly easy examples are down-weighted [1]_.
    gamma_pos, gamma_neg : float
        Asymmetric loss: the same, for positive and for negative examples [2]_.
    clip : float
        Asymmetric loss: a negative example with a probability up to this has no loss [2]_.
    label_smoothing : float
        How far targets move towards 0.5, as in `keras.losses.BinaryCrossentropy`.

    Returns
    -------
    callable
        From ``y_true`` of any type and logits to the loss of each image.

    Raises
    ------
    ParameterError
        The name is unknown, or a number is out of its range.

    References
    ----------
    .. [1] Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, without its weight alpha.
    .. [2] Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """
    if name not in LOSSES:
        raise ParameterError(f"loss is {name!r}, expected {', '.join(LOSSES[:-1])} or {LOSSES[-1]}")
    for key, value in {"gamma": gamma, "gamma_pos": gamma_pos, "gamma_neg": gamma_neg}.items():
        check_number(value, key, float, 0)
    check_number(clip, "clip", float, 0, 1, closed="left")
    check_number(label_smoothing, "label_smoothing", float, 0, 1, closed="left")
    compute: Loss = cross_entropy
    if name == "focal":
        compute = lambda y_true, logits: asymmetric(y_true, logits, gamma, gamma, 0.0)  # noqa: E731
    elif name == "asymmetric":
        compute = lambda y_true, logits: asymmetric(y_true, logits, gamma_pos, gamma_neg, clip)  # noqa: E731

    def loss(y_true: Any, logits: Any) -> Any:
        y_true = import_keras().ops.cast(y_true, logits.dtype)
        if label_smoothing:
            y_true = y_true * (1 - label_smoothing) + label_smoothing / 2
        return compute(y_true, logits)

    return loss


def cross_entropy(y_true: Any, logits: Any) -> Any:
    """Binary cross-entropy."""
    ops = import_keras().ops
    return ops.mean(ops.softplus(logits) - y_true * logits, axis=-1)


def asymmetric(y_true: Any, logits: Any, gamma_pos: float, gamma_neg: float, clip: float) -> Any:
    """Asymmetric loss, which down-weights easy examples; the focal loss if both gammas are equal and clip is 0.

    ``-(y (1 - p)^gamma_pos log p + (1 - y) q^gamma_neg log(1 - q))`` with ``q = max(p - clip, 0)``.
    """
    ops = import_keras().ops
    positive, negative = -ops.softplus(-logits), -ops.softplus(logits)  # log p and log(1 - p)
    if gamma_pos:
        positive = positive * ops.exp(gamma_pos * -ops.softplus(logits))
    shifted = ops.relu(ops.sigmoid(logits) - clip)
    if clip:
        negative = ops.log1p(-shifted)
    if gamma_neg:
        negative = negative * ops.power(ops.maximum(shifted, MIN_BASE), gamma_neg)
    return -ops.mean(y_true * positive + (1 - y_true) * negative, axis=-1)
