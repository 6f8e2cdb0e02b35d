"""A decoder of calibrated scores."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.calibration import Calibration


class Calibrated(Decoder):
    """A decoder of calibrated scores; both are fitted to the same scores.

    Parameters
    ----------
    calibration : Calibration
    decoder : Decoder
    """

    tuned = True

    def __init__(self, calibration: Calibration, decoder: Decoder) -> None:
        super().__init__(decoder.may_be_empty)
        self.calibration = calibration
        self.decoder = decoder

    def fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts = None, groups: Groups = None) -> Self:
        """Fit the calibration, then the decoder to what it makes of the scores."""
        self.decoder.fit(self.calibration.fit(scores, Y).transform(scores), Y, n_true, groups)
        return self

    def predict(self, scores: Scores) -> scipy.sparse.csr_matrix:
        """Indicator of the concepts that each image is given, shape (n_images, n_concepts)."""
        return self.decoder.predict(self.calibration.transform(scores))

    def _choose(self, scores: Scores) -> NDArray[np.bool_]:
        return self.decoder._choose(self.calibration.transform(scores))

    def report(self) -> dict[str, Any]:
        """What the decoder tells."""
        return self.decoder.report()

    def get_state(self) -> dict[str, Any]:
        """What was fitted."""
        return {"calibration": self.calibration.get_state(), "decoder": self.decoder.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Take it back."""
        self.calibration.set_state(state["calibration"])
        self.decoder.set_state(state["decoder"])
        return self
