"""Heat maps for the gallery, by the explainer of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import UserError
from show.explainer import Explainer
from show.report.outcome import Outcome


class HeatMaps:
    """Gives the heat maps of images, as `show.report.gallery.Explain` has it.

    Parameters
    ----------
    outcome : Outcome

    Raises
    ------
    UserError
        The run cannot be explained, or its network is missing.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._explainer = Explainer(outcome.folder)
        train = outcome.labelled.train
        n_images = train.Y.shape[0]
        # What every training image or none has scores the same everywhere.
        self._drawable = {concept for concept, n in train.count_concepts().items() if 0 < n < n_images}

    def __call__(self, content: bytes, concepts: Sequence[str]) -> Mapping[str, NDArray[np.floating]]:
        """The map of each concept that has one.

        Parameters
        ----------
        content : bytes
            The content of the file.
        concepts : sequence of str
        """
        wanted = [concept for concept in concepts if concept in self._drawable]
        try:
            maps = self._explainer.explain(content, concepts=wanted).maps if wanted else []
        except UserError:
            return {}
        return {each.concept: each.values for each in maps}
