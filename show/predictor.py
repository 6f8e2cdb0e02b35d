"""Predict the concepts of any images with a finished run or ensemble."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.images import find_files
from cache.store import Split
from cache.support.command import check_interrupted
from cache.support.progress import Progress
from eval.concept_names import find_names
from featurize.embedder import open_embedder
from heads.ensembles.ensemble import reopen_predictor


class ConceptScore(NamedTuple):
    """One concept of an image.

    Parameters
    ----------
    concept : str
        Its CUI.
    name : str
        In plain words; empty if the data folder of the run has no table of names.
    probability : float
        The score as the decoder sees it; NaN if the image cannot be read.
    is_predicted : bool
    """

    concept: str
    name: str
    probability: float
    is_predicted: bool


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a run predicts for one image.

    Parameters
    ----------
    image : str
        Its path, or the id that was given.
    sha256 : str
        Digest of its bytes, as hexadecimal digits; zeros if they cannot be read.
    reason : str
        Why it cannot be read; empty if it can. Then `concepts` is the run's fallback set.
    concepts : list of str
        The predicted concepts, sorted.
    probabilities : ndarray of float32, shape (n_concepts,)
        Of every concept of the vocabulary: scores as the decoder sees them, calibrated if it calibrates. NaN if the
        image cannot be read.
    vocabulary : list of str, length n_concepts
        The concept of each probability.
    names : mapping of str to str
        Names by concept.
    """

    image: str
    sha256: str
    reason: str
    concepts: list[str]
    probabilities: NDArray[np.float32] = field(repr=False)
    vocabulary: list[str] = field(repr=False)
    names: Mapping[str, str] = field(repr=False)

    @property
    def is_readable(self) -> bool:
        """Whether the image can be read."""
        return not self.reason

    def rank(self, n_others: int | None = None) -> list[ConceptScore]:
        """The predicted concepts and others, the most probable first.

        Parameters
        ----------
        n_others : int, optional
            How many that are not predicted; all if not given. None if the image cannot be read.
        """
        predicted = set(self.concepts)
        order = np.argsort(-self.probabilities, kind="stable")
        others = [column for column in order if self.vocabulary[column] not in predicted] if self.is_readable else []
        shown = {*others[:n_others], *(column for column in order if self.vocabulary[column] in predicted)}
        return [self._describe(int(column), predicted) for column in order if column in shown]

    def _describe(self, column: int, predicted: set[str]) -> ConceptScore:
        concept = self.vocabulary[column]
        return ConceptScore(
            concept, self.names.get(concept, ""), float(self.probabilities[column]), concept in predicted
        )


class ImagePredictor:
    """A finished run or ensemble that predicts any images.

    Images are decoded and embedded as those that the run was trained on were. One whose bytes are in a store takes its
    embedding from there. Methods may be called from several threads; they wait for each other.

    Parameters
    ----------
    run : path
        The folder of a finished run or ensemble.

    Attributes
    ----------
    folder : Path
    opened : Predictor
        The run or ensemble with its stores.
    embedders : dict of Path to Embedder
        By the path of the store.
    names : dict of str to str
        Names by concept.

    Raises
    ------
    RunError
        The run is missing, unfinished or damaged.
    StoreError
        A store of the run, or the network beside it, is missing, damaged or of other features.
    NotInstalledError
        The engine of a store is not installed.

    Examples
    --------
    >>> predictor = ImagePredictor("runs/my_images/kernel")  # doctest: +SKIP
    >>> (prediction,) = predictor.predict_bytes([Path("scan.png").read_bytes()])  # doctest: +SKIP
    >>> prediction.concepts  # doctest: +SKIP
    ['C0040405', 'C0817096']
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        self.folder = Path(run)
        self.opened = reopen_predictor(self.folder)
        self.embedders = {store.path: open_embedder(store) for store in self.opened.stores}
        self._lock = threading.Lock()
        self.names: dict[str, str] = {}
        for folder in self.opened.data_folders:
            self.names = find_names(folder) | self.names

    def __repr__(self) -> str:
        return f"<ImagePredictor of '{self.folder}'>"

    @property
    def vocabulary(self) -> list[str]:
        """The concepts that it can predict."""
        return self.opened.vocabulary

    def predict_files(self, paths: Sequence[Path], workers: int | None = None) -> Iterator[Prediction]:
        """Predict image files, some at a time, so that memory does not grow with their number.

        Parameters
        ----------
        paths : sequence of Path
        workers : int, optional
            Processes; few images need none, otherwise the engine decides.

        Yields
        ------
        Prediction
            In the order of the paths. A file that cannot be read, or that has vanished, gets the fallback set.

        Raises
        ------
        DataError
            A file cannot be read because of the disk, the network or a lack of open files.
        """
        step = min(embedder.block_images for embedder in self.embedders.values())
        with closing(Progress(len(paths) * len(self.embedders), "embedding")) as progress:
            for start in range(0, len(paths), step):
                check_interrupted()
                block = paths[start : start + step]
                yield from self.predict_rows(
                    {
                        path: embedder.embed_files(block, workers, progress.add)
                        for path, embedder in self.embedders.items()
                    }
                )

    def predict_bytes(self, contents: Sequence[bytes], ids: Sequence[str] | None = None) -> list[Prediction]:
        """Predict images that are in memory.

        Parameters
        ----------
        contents : sequence of bytes, length n_images
            The content of each file.
        ids : sequence of str, length n_images, optional
            What the predictions call them; their numbers if not given.
        """
        return self.predict_rows({path: each.embed(contents, ids) for path, each in self.embedders.items()})

    def predict_rows(self, rows: Mapping[Path, Split]) -> list[Prediction]:
        """Predict images that an embedder has embedded.

        Parameters
        ----------
        rows : mapping of Path to Split
            What each of `embedders` gave for the same images.
        """
        with self._lock:
            scored = self.opened.predict_rows(rows)
        first = next(iter(rows.values()))
        return [
            Prediction(
                image,
                first.rows.digests[row].tobytes().hex(),
                "" if scored.readable[row] else first.rows.reasons[row],
                scored.concepts[row],
                scored.probabilities[row],
                self.vocabulary,
                self.names,
            )
            for row, image in enumerate(first.ids)
        ]


def predict(
    run: str | os.PathLike[str], images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
) -> list[Prediction]:
    """Predict the concepts of images with a finished run or ensemble.

    For many images, iterate over `ImagePredictor.predict_files`, which holds a part of them in memory.

    Parameters
    ----------
    run : path
        The folder of the run.
    images : path or sequence of paths
        Files, and folders of which every image is taken.

    Returns
    -------
    list of Prediction
        In the order of `images`.

    Raises
    ------
    UserError
        There is no image, or the run, its store or its network is missing or damaged.

    Examples
    --------
    >>> from show import predict
    >>> for each in predict("runs/my_images/kernel", "new_images"):  # doctest: +SKIP
    ...     print(each.image, each.concepts)
    """
    given = [images] if isinstance(images, (str, os.PathLike)) else images
    paths = find_files(given)
    return list(ImagePredictor(run).predict_files(paths))
