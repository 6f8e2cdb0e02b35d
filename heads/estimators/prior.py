"""The baseline: every image gets the training frequencies."""

from typing import Any, ClassVar, NoReturn

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import UserError
from heads.data.arrays import SavedArray
from heads.data.validation import positive_rate
from heads.estimators.base import Head
from heads.networks.backend import import_keras
from heads.networks.layers import head_model, linear


class PriorHead(Head):
    """Score each concept by its frequency in the training images.

    Attributes
    ----------
    frequency_ : ndarray of float32, shape (n_concepts,)

    Examples
    --------
    >>> PriorHead().fit([[1.0], [2.0]], [[1, 0], [1, 1]]).predict_proba([[5.0]])
    array([[1. , 0.5]], dtype=float32)
    """

    arrays: ClassVar = {"frequency": SavedArray(("concepts",))}

    def _fit(self, X: NDArray[np.float32], Y: scipy.sparse.csr_matrix) -> None:
        self.frequency_ = positive_rate(Y)

    def _scores(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tile(self.frequency_, (len(X), 1))

    def _linearize(self, X: NDArray[np.float32], columns: NDArray[np.int64]) -> NoReturn:
        raise UserError("prior gives every image the same scores, whatever it shows: there is nothing to explain")

    def to_keras(self) -> Any:
        """This head as a Keras model."""
        keras = import_keras()
        features = keras.Input((self.n_features_in_,))
        return head_model(features, linear(keras.ops.ones_like(features[:, :1]), self.frequency_[:, None]))
