"""Where in an image a run sees its concepts: heat maps, or the training images that decide.

The features of an image are means of maps: at each place of a coarse grid there is one number per feature. What a place
contributes to a score is therefore known. For a head that is linear in the features this is the class activation map
(Zhou et al., 2016), and its mean is the score. For other heads the score is linearised at the image: the gradient times
the maps (HiResCAM; Draelos and Carin, 2020), a first-order explanation.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cache.images import find_files
from cache.store import Split
from cache.support.errors import DataError, ParameterError, RunError, UserError
from eval.concept_names import name_concept
from heads.data.split import pick_features
from heads.runs.files import MEMBERS
from heads.runs.predictor import StoredRun
from show.concepts import find_concepts
from show.predictor import ImagePredictor, Prediction

EXACT = "exact: the mean of each map is the {} of the concept"
FIRST_ORDER = "first order: the {} is linearised at the image, and the mean of each map is its value there"
FINE = 200
"""Side of the square on which a map is measured."""

NOTHING = "every predicted concept is in all training images: there is nothing to draw"
VOTES = "the head votes: these training images decide"


@dataclass(frozen=True, eq=False)
class HeatMap:
    """What each place of an image contributes to the score of a concept.

    Parameters
    ----------
    image : str
    concept : str
        Its CUI.
    name : str
        In plain words; empty if there is none.
    probability : float
        That the run gives to the concept.
    values : ndarray of float32, shape (height, width)
        The score that the image would have if it looked everywhere as it does here. The grid covers the whole image,
        whatever its shape.
    score : float
        The score of the image, before it is squashed or clipped: the mean of `values`.
    unit : str
        What the values are: ``logit`` or ``score``.
    is_exact : bool
        Whether the score is linear in the features. Otherwise the values are those of its linearisation.
    """

    image: str
    concept: str
    name: str
    probability: float
    values: NDArray[np.float32] = field(repr=False)
    score: float
    unit: str
    is_exact: bool

    @property
    def method(self) -> str:
        """How the map was computed, in words."""
        return (EXACT if self.is_exact else FIRST_ORDER).format(self.unit)

    def resize(self, height: int, width: int) -> NDArray[np.float32]:
        """The map in the shape of a picture, interpolated between places.

        Returns
        -------
        ndarray of float32, shape (height, width)
        """
        resized = PIL.Image.fromarray(self.values).resize((width, height), PIL.Image.Resampling.BICUBIC)
        return np.asarray(resized)

    def share_within(self, box: tuple[float, float, float, float]) -> float:
        """The share of what speaks for the concept, more than the image on average, that is within a box.

        Parameters
        ----------
        box : tuple of float
            Left, top, right and bottom, in [0, 1].
        """
        left, top, right, bottom = (round(FINE * side) for side in box)
        above = np.maximum(self.resize(FINE, FINE) - self.score, 0)
        return float(above[top:bottom, left:right].sum() / max(float(above.sum()), np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class Neighbour:
    """A training image that decides the scores of an image.

    Parameters
    ----------
    id : str
    distance : float
        One minus the cosine of the angle between the embeddings.
    concepts : list of str
        Its concepts, of those that the run knows.
    """

    id: str
    distance: float
    concepts: list[str]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a run predicts what it does for an image.

    Parameters
    ----------
    prediction : Prediction
    maps : list of HeatMap
        One per concept; none if the head votes.
    neighbours : list of Neighbour
        The nearest first; none unless the head votes.
    """

    prediction: Prediction
    maps: list[HeatMap]
    neighbours: list[Neighbour]

    @property
    def method(self) -> str:
        """How it was found out, in words."""
        return self.maps[0].method if self.maps else VOTES if self.neighbours else NOTHING


class Explainer:
    """A finished run that explains what it predicts.

    Parameters
    ----------
    run : path or ImagePredictor
        The folder of a finished run, or the opened run.

    Raises
    ------
    RunError
        The run is missing, unfinished or damaged, or an ensemble.
    UserError
        Its head has nothing to explain, or its store or network is missing.

    Examples
    --------
    >>> explainer = Explainer("runs/my_images/logistic")  # doctest: +SKIP
    >>> explainer.heat_map(Path("scan.png").read_bytes(), "pleural effusion").values.shape  # doctest: +SKIP
    (7, 7)
    """

    def __init__(self, run: str | os.PathLike[str] | ImagePredictor) -> None:
        self.predictor = run if isinstance(run, ImagePredictor) else ImagePredictor(run)
        opened, folder = self.predictor.opened, self.predictor.folder
        if not isinstance(opened, StoredRun):
            raise RunError(f"{folder}: an ensemble, which joins several heads; explain one of those in "
                           f"{folder / MEMBERS}")  # fmt: skip
        self._stored = opened
        self._embedder = self.predictor.embedders[opened.store.path]
        self._check_head()

    def __repr__(self) -> str:
        return f"<Explainer of '{self.predictor.folder}'>"

    def find_concepts(self, text: str) -> list[str]:
        """The concepts of a text of codes and names; see `show.concepts.find_concepts`."""
        return find_concepts(text, self.predictor.vocabulary, self.predictor.names)

    def explain(self, content: bytes, image: str = "image", concepts: Sequence[str] | None = None) -> Explanation:
        """Explain some concepts of an image.

        Parameters
        ----------
        content : bytes
            The content of the file.
        image : str
            What the result calls it.
        concepts : sequence of str, optional
            Their codes; those that are predicted if not given, the most probable first.

        Returns
        -------
        Explanation

        Raises
        ------
        DataError
            The image cannot be read.
        """
        rows = self._embedder.embed([content], [image])
        (prediction,) = self.predictor.predict_rows({self._stored.store.path: rows})
        if not prediction.is_readable:
            raise DataError(f"{image}: cannot be read: {prediction.reason}")
        neighbours = self._find_neighbours(pick_features(rows, self._stored.run.pooling))
        if neighbours:
            return Explanation(prediction, [], neighbours)
        places = self._find_places(content, rows.embeddings)
        X = places.mean(axis=(1, 2)) if self._stored.store.has_maps else self._as_array(rows)
        return Explanation(prediction, self._draw(prediction, places[0], X, concepts), [])

    def heat_map(self, content: bytes, concept: str, image: str = "image") -> HeatMap:
        """The map of one concept, by its code or its name.

        Parameters
        ----------
        content : bytes
            The content of the file.
        concept : str
        image : str
            What the result calls the image.

        Returns
        -------
        HeatMap

        Raises
        ------
        ParameterError
            The run does not know the concept.
        UserError
            The image cannot be read, or the head votes and has no maps.
        """
        explained = self.explain(content, image, self.find_concepts(concept)[:1])
        if not explained.maps:
            raise UserError(f"{self.predictor.folder}: its head votes among training images and has no maps")
        return explained.maps[0]

    def _check_head(self) -> None:
        """Refuse a head that explains nothing, before an image is read."""
        head, stored = self._stored.run.head, self._stored
        if head.takes_maps:
            return
        split = next(iter(stored.store.splits.values()))
        X = np.zeros((1, pick_features(split, stored.run.pooling).shape[1]), np.float32)
        if head.find_neighbours(X) is None:
            head.linearize(X, [0])

    def _as_array(self, rows: Split) -> NDArray[np.float32]:
        return np.asarray(pick_features(rows, self._stored.run.pooling), np.float32)

    def _find_places(self, content: bytes, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """The features of each place, shape (1, height, width, n_features); their mean is what the head scores."""
        run, store = self._stored.run, self._stored.store
        if store.has_maps:
            return run.head.final_maps(np.asarray(embeddings, np.float32))
        parts = next(iter(store.splits.values())).parts
        return self._embedder.find_places([content], parts.split(run.pooling) if run.pooling else parts.names)

    def _draw(
        self,
        prediction: Prediction,
        places: NDArray[np.float32],
        X: NDArray[np.float32],
        concepts: Sequence[str] | None,
    ) -> list[HeatMap]:
        """The map of each concept; of each predicted one that has a map, if none is given."""
        vocabulary, names = prediction.vocabulary, prediction.names
        drawn = [each.concept for each in prediction.rank(0)] if concepts is None else concepts
        columns = [vocabulary.index(concept) for concept in drawn]
        linear = self._stored.run.head.linearize(X, columns)
        maps = []
        for number, concept in enumerate(drawn):
            score, gradient = float(linear.values[0, number]), linear.gradients[0, number]
            if not np.isfinite(score):
                if concepts is None:
                    continue
                raise ParameterError(f"{name_concept(concept, names)}: in every training image or in none, so its "
                                     "score is the same for every image; there is nothing to explain")  # fmt: skip
            values = (places.astype(np.float64) - X[0]) @ gradient + score
            probability = float(prediction.probabilities[columns[number]])
            maps.append(
                HeatMap(
                    prediction.image,
                    concept,
                    names.get(concept, ""),
                    probability,
                    values.astype(np.float32),
                    score,
                    linear.unit,
                    linear.is_exact,
                )
            )
        return maps

    def _find_neighbours(self, X: NDArray[np.float32]) -> list[Neighbour]:
        head = self._stored.run.head
        found = None if head.takes_maps else head.find_neighbours(X)
        if found is None:
            return []
        return [
            Neighbour(
                self._training_ids[row],
                1 - float(similarity),
                [self.predictor.vocabulary[column] for column in found.labels[row].indices],
            )
            for row, similarity in zip(found.rows[0], found.similarities[0], strict=True)
        ]

    @cached_property
    def _training_ids(self) -> list[str]:
        return self._stored.training_ids()


def explain(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    concepts: str | None = None,
) -> list[Explanation]:
    """Explain what a run predicts for images.

    Parameters
    ----------
    run : path
        The folder of a finished run.
    images : path or sequence of paths
        Files, and folders of which every image is taken.
    concepts : str, optional
        Codes or names with spaces or commas between them; what is predicted for each image if not given.

    Returns
    -------
    list of Explanation

    Raises
    ------
    UserError
        There is no image, one cannot be read, a concept is unknown, or the run cannot be explained.

    Examples
    --------
    >>> from show import explain
    >>> (explanation,) = explain("runs/my_images/logistic", "scan.png", "chest")  # doctest: +SKIP
    >>> explanation.maps[0].values.shape  # doctest: +SKIP
    (7, 7)
    """
    given = [images] if isinstance(images, (str, os.PathLike)) else images
    paths, explainer = find_files(given), Explainer(run)
    wanted = None if concepts is None else explainer.find_concepts(concepts)
    return [explainer.explain(read_image(path), str(path), wanted) for path in paths]


def read_image(path: Path) -> bytes:
    """The bytes of an image file.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
