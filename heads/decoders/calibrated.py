"""A decoder of calibrated scores."""

from collections.abc import Mapping
from typing import Any, Self, TypedDict

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.base import clone

from cache.support.errors import ParameterError
from cache.support.json_file import check_type
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.decoders.calibration import Calibration


class CalibratedState(TypedDict):
    """What is saved of both steps."""

    calibration: dict[str, Any]
    decoder: dict[str, Any]


class Calibrated(Decoder):
    """Turns scores into probabilities first, then decodes these.

    Both steps are fitted to the same scores. As scikit-learn's meta-estimators do, `fit` leaves the two objects of the
    constructor as they are and fits clones of them.

    Parameters
    ----------
    calibration : Calibration
    decoder : Decoder
        It also decides whether an image may be left without a concept.

    Attributes
    ----------
    calibration_ : Calibration
        Fitted.
    decoder_ : Decoder
        Fitted to the calibrated scores.

    Examples
    --------
    >>> from heads.registry import make_decoder
    >>> make_decoder("platt+global")
    Calibrated(calibration=Platt(), decoder=GlobalThreshold())
    """

    tuned = True
    calibration_: Calibration
    decoder_: Decoder

    def __init__(self, calibration: Calibration, decoder: Decoder) -> None:
        self.calibration = calibration
        self.decoder = decoder

    def check_params(self) -> None:
        """Raise a ParameterError if a part is of another kind, or has a wrong parameter."""
        for name, kind in (("calibration", Calibration), ("decoder", Decoder)):
            if not isinstance(getattr(self, name), kind):
                raise ParameterError(f"{name} = {getattr(self, name)!r}, expected an instance of {kind.__name__}")
        self.decoder.check_params()

    def _fit(self, scores: Scores, Y: scipy.sparse.csr_matrix, n_true: Counts, groups: Groups) -> None:
        self.calibration_ = clone(self.calibration).fit(scores, Y)
        # A decoder without anything to tune ignores the scores; probabilities would take as much memory as they do.
        probabilities = self.calibration_.transform(scores) if self.decoder.tuned else scores
        self.decoder_ = clone(self.decoder).fit(probabilities, Y, n_true, groups)

    def calibrate(self, scores: Scores) -> Scores:
        """Calibrated probabilities, shape (n_images, n_concepts)."""
        return self.calibration_.transform(scores)

    def _predict_block(self, scores: Scores) -> scipy.sparse.csr_matrix:
        # Calibrated block by block: probabilities of all images at once would take as much memory as the scores.
        return self.decoder_.predict(self.calibration_.transform(scores))

    def _select(self, scores: Scores) -> NDArray[np.bool_]:
        return self.decoder_._select(self.calibration_.transform(scores))

    def report(self) -> dict[str, Any]:
        """Return the decoder's report."""
        return self.decoder_.report()

    def get_state(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"calibration": self.calibration_.get_state(), "decoder": self.decoder_.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> Self:
        """Restore what `get_state` returned."""
        states = check_type(state, CalibratedState)
        self.calibration_ = clone(self.calibration).set_state(states["calibration"])
        self.decoder_ = clone(self.decoder).set_state(states["decoder"])
        return self

    def check_concepts(self, n_concepts: int) -> None:
        """Check both."""
        self.calibration_.check_concepts(n_concepts)
        self.decoder_.check_concepts(n_concepts)
