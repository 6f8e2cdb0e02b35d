"""Losses for many rare concepts, as Keras takes them: from logits, for each image the mean over concepts.

Keras is imported inside the functions: asking for a head's parameters must not cost seconds.
"""

from collections.abc import Callable
from typing import Any

from heads.estimators.base import check_number
from heads.networks.backend import import_keras

LOSSES = ("cross-entropy", "focal", "asymmetric")

LEAST = 1e-8
"""Probability below which the focus on absent concepts is flat: a root has no slope at zero."""

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
    """Make a loss by its name.

    Parameters
    ----------
    name : str
        ``cross-entropy``, ``focal`` or ``asymmetric``.
    gamma : float
        Focal: how much less an image counts whose score is nearly right [1]_.
    gamma_pos, gamma_neg : float
        Asymmetric: the same, for concepts that are shown and that are not [2]_.
    clip : float
        Asymmetric: the score up to which a concept that is not shown costs nothing [2]_.
    label_smoothing : float
        How far targets move towards 0.5, as in `keras.losses.BinaryCrossentropy`.

    Returns
    -------
    callable
        From ``y_true`` of any type and logits to the loss of each image.

    Raises
    ------
    ValueError, TypeError
        The name is unknown (the known ones are listed), or a number is out of its range.

    References
    ----------
    .. [1] Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, without its weight alpha.
    .. [2] Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021.
    """
    if name not in LOSSES:
        raise ValueError(f"loss is {name!r}, expected {', '.join(LOSSES[:-1])} or {LOSSES[-1]}")
    focus = {"gamma": gamma, "gamma_pos": gamma_pos, "gamma_neg": gamma_neg}
    for key, value in focus.items():
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
    """Cross-entropy that looks away from what is nearly right; the focal loss if both sides look alike and clip is 0.

    ``-(y (1 - p)^gamma_pos log p + (1 - y) q^gamma_neg log(1 - q))`` with ``q = max(p - clip, 0)``.
    """
    ops = import_keras().ops
    present, absent = -ops.softplus(-logits), -ops.softplus(logits)  # log p and log(1 - p)
    if gamma_pos:
        present = present * ops.exp(gamma_pos * -ops.softplus(logits))
    likely = ops.relu(ops.sigmoid(logits) - clip)
    if clip:
        absent = ops.log1p(-likely)
    if gamma_neg:
        absent = absent * ops.power(ops.maximum(likely, LEAST), gamma_neg)
    return -ops.mean(y_true * present + (1 - y_true) * absent, axis=-1)
