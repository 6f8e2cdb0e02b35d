"""Make a run: fit a head, tune the decoder, score valid, and learn from valid too if that is requested."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.lock import locked
from cache.network_files import TAIL
from cache.store import FeatureStore
from cache.support.errors import RunError
from cache.support.files import write_text
from cache.support.reporting import report
from cache.support.versions import installed_versions
from eval.concept_names import find_names
from eval.editions import find_edition
from eval.f1 import image_f1
from eval.run_folder import VALID
from eval.submission import render_submission, write_submission
from heads.data.official_score import ScoreMetrics
from heads.data.rounding import round_scores
from heads.data.split import LabelledSplit, join_features
from heads.data.store import LabelledStore
from heads.data.types import Counts, Groups, Scores
from heads.data.vocabulary import columns_to_concepts
from heads.estimators.storage import check_restores, load_head
from heads.evaluation.cross_validation import EstimateMetrics, decode_held_out, decoder_f1, nested_f1, summarise
from heads.evaluation.out_of_fold import CrossFit, tuning_scores
from heads.networks.stored import StoredNetwork
from heads.runs.card import ModelCard
from heads.runs.checks import check_decoder_restores, check_kind, check_labels
from heads.runs.command_line import repeat_run, repeat_store
from heads.runs.concept_table import CONCEPTS, ConceptTable
from heads.runs.description import describe, report_run
from heads.runs.files import FORMAT, VALID_SCORES
from heads.runs.folder import CARD, METRICS, check_folder, find_metrics, find_whole, read_request, replacing_results
from heads.runs.leftovers import Training, remove_leftovers
from heads.runs.metrics import RequestDigests, RunMetrics, StoreMetrics, TrainMetrics
from heads.runs.progress import Clock, watching
from heads.runs.request import BOTH, FOLDS, TRAIN, VALID_SPLIT, RunRequest
from heads.runs.run import Run
from heads.runs.saved_scores import load_scores, save_scores

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head, ProgressCallback

PACKAGES = ("h5py", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu")
"""The packages whose versions are in the metrics."""

FEW = 4
"""How many images are scored to check that a head can be saved and loaded."""

FOLDS_IMAGES = 10_000
"""Most images on which F1 by folds is estimated: a decoder is fitted five times for it. At so many the interval is
narrower than what heads differ in."""

HeldOutConcepts = tuple[NDArray[np.int64], scipy.sparse.csr_matrix]
"""Rows of images, and the concepts that were predicted for them without their fold."""

TuningData = tuple[Scores, scipy.sparse.csr_matrix, Counts, Groups]
"""The arguments of `Decoder.fit`."""


def fit_run(
    head: str,
    store: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    params: Mapping[str, Any] | None = None,
    decoder: str | None = None,
    tune: str | None = None,
    nested: bool | None = None,
    pooling: str | None = None,
    concepts: Sequence[str] | None = None,
    train: str | None = None,
) -> RunMetrics:
    """Train a head, tune its decoder, score it on valid, and save the result as a run.

    An option that is None has the value of the run in `out`, if that is of the same head and data. Otherwise it has
    its default. A finished run of the same request is left as it is.

    Parameters
    ----------
    head : str
        A head of the registry, such as ``kernel``.
    store, data : path
        The feature store, and the data folder with the labels.
    out : path
        The folder of the run.
    params : mapping, optional
        Parameters of the head.
    decoder : str, optional
        ``[CALIBRATION+]NAME[:VALUE][,empty]``, such as ``fixed:0.3``.
    tune : str, optional
        What the decoder is tuned on: ``folds``, out-of-fold scores of train, or ``valid``.
    nested : bool, optional
        Whether to estimate by nested cross-validation, too, what head and decoder reach on new images.
    pooling : str, optional
        Names of parts of the store's features, with commas between them; all parts if empty.
    concepts : sequence of str, optional
        The concepts to learn; those of train if empty.
    train : str, optional
        What the saved head learns from: ``train``, or ``train+valid`` after everything else was chosen on train.

    Returns
    -------
    dict
        The metrics, as in ``metrics.json``.

    Raises
    ------
    UserError
        The request, the store or the labels are at fault, or another process is writing the run.
    """
    store, data, out = Path(store), Path(data), Path(out)
    options = {"params": params, "decoder": decoder, "tune": tune, "nested": nested, "pooling": pooling,
               "concepts": concepts, "train": train}  # fmt: skip
    clock = Clock()
    request = RunRequest.resolve(head, store, data, out, options)
    with clock("load"):
        labelled = LabelledStore.load(store, data, request.pooling, request.concepts)
    earlier = find_whole(out)
    if earlier and request.is_of(read_request(out)):
        params = earlier["params"]  # making the head would load scikit-learn, which takes a second
    else:
        head_to_be = request.make_head()
        prepare_head(head_to_be, labelled.store)
        params = head_to_be.get_params()
    digests = request.digest(params, labelled)
    if earlier and earlier["requests"] == digests:
        remove_leftovers(out, Training.of(out, digests["head"]))
        report(f"{out}: up to date ({describe(earlier)})")
        return earlier
    with locked(out, RunError):
        return build_run(request, labelled, out, clock)


def build_run(request: RunRequest, data: LabelledStore, out: Path, clock: Clock) -> RunMetrics:
    """Make the run of a request with what an earlier run of the same head has computed.

    The caller holds the lock of `out`.
    """
    head, decoder = request.make_head(), request.make_decoder()
    prepare_head(head, data.store)
    digests = request.digest(head.get_params(), data)
    training = Training.of(out, digests["head"])
    builder, scores = RunBuilder(request, data, clock, training.checkpoint), None
    check_folder(out)
    check_labels(request, decoder, data.train, data.valid)
    earlier = find_whole(out)
    if earlier:
        same = earlier["requests"]["head"] == digests["head"]
        report(f"{out}: {'decodes again' if same else 'replaces'} an earlier run ({describe(earlier)})")
        scores = load_scores(out, data.train.tuning.Y.shape) if same else None
        if same and earlier["train"]["splits"] != BOTH:
            head = load_head(out)
            prepare_head(head, data.store)
    elif find_metrics(out):
        report(f"{out}: one of its files is damaged; it is made again")
    with training.forgetting(), watching(head) as progress:
        crossed = None
        if not hasattr(head, "n_concepts_"):
            if builder.needs_folds(decoder) and scores is None:
                crossed = builder.fit_with_folds(head, progress)
                head = crossed.head
            else:
                head = builder.fit(head)
        built = builder.build(head, decoder, digests, scores, crossed)
    built.save(out, request, data)
    shutil.rmtree(training.folder, ignore_errors=True)
    report_run(out, built.metrics, built.concepts)
    return built.metrics


def prepare_head(head: "Head", store: FeatureStore) -> None:
    """Check that a head can learn from a store, and give it what it needs of the network.

    Raises
    ------
    StoreError
        The head learns from maps and the store holds embeddings, or the other way round; or the network is missing.
    """
    check_kind(head, store.has_maps, f"{store.path}: holds {_describe_features(store)}")
    if head.takes_maps:
        head.set_network(StoredNetwork.find(store, TAIL).path)


def _predict_valid(run: Run, valid: LabelledSplit, scores: Scores | None) -> list[list[str]]:
    """The concepts of each image of valid. Its scores are never all in memory unless they are given."""
    if scores is not None:
        return run.decode(scores, valid.readable)
    features = valid.features if len(valid.rows) == len(valid.features) else valid.features[valid.rows]
    return run.predict(features, valid.readable)


def _describe_features(store: FeatureStore) -> str:
    facts = store.provenance
    if store.has_maps:
        return f"maps after {facts.layer} (POOLING=none)"
    return f"embeddings ({facts.pooling} pooling after {facts.layer})"


@dataclass(frozen=True)
class BuiltRun:
    """A run before it is saved.

    Parameters
    ----------
    run : Run
    metrics : dict
    valid_ids : list of str
    predicted : list of list of str
        The concepts of each image of valid.
    concepts : ConceptTable
    scores : ndarray of float32, or None
        Out-of-fold scores of train (`LabelledSplit.tuning`), if a decoder was tuned on them.
    valid_scores : ndarray of float32, or None
        Scores of valid by the head that had not learnt from it, if the saved head has.
    """

    run: Run
    metrics: RunMetrics
    valid_ids: list[str]
    predicted: list[list[str]]
    concepts: ConceptTable
    scores: Scores | None
    valid_scores: Scores | None

    def save(self, out: Path, request: RunRequest, data: LabelledStore) -> None:
        """Write the folder of the run, in place of an earlier one.

        Raises
        ------
        StoreError
            The store was changed while the run was made from it.
        RunError
            The folder cannot be written.
        """
        data.store.check_unchanged()
        card = ModelCard(
            self.metrics,
            data,
            Path(request.data),
            [repeat_store(self.metrics, request, data.store.weights_origin.name), repeat_run(request, out)],
        )
        with replacing_results(out, vars(request)) as folder:
            self.run.save(folder)
            if self.scores is not None:
                save_scores(self.scores, folder)
            if self.valid_scores is not None:
                save_scores(self.valid_scores, folder, VALID_SCORES)
            save_result(folder, self.metrics, self.valid_ids, self.predicted, self.concepts, card)


def save_result(
    folder: Path,
    metrics: RunMetrics,
    valid_ids: list[str],
    predicted: list[list[str]],
    concepts: ConceptTable,
    card: ModelCard,
) -> None:
    """Write the concepts of valid, the table per concept, the metrics and the model card."""
    if valid_ids:
        # Every tool of the field reads the format of 2024.
        plain = find_edition(2024)
        write_submission(folder / VALID, render_submission(valid_ids, predicted, plain), plain)
    concepts.write(folder / CONCEPTS)
    write_text(folder / METRICS, json.dumps(metrics, indent=1))
    write_text(folder / CARD, card.render())


@dataclass(frozen=True)
class RunBuilder:
    """Makes runs from one labelled store.

    Parameters
    ----------
    request : RunRequest
    data : LabelledStore
    clock : Clock
        Measures the stages.
    checkpoint : Path, optional
        Where a head that trains for long saves its state after each epoch.
    """

    request: RunRequest
    data: LabelledStore
    clock: Clock
    checkpoint: Path | None = None

    def fit(self, head: "Head") -> "Head":
        """Fit a head on train."""
        train = self.data.train
        with self.clock("fit"), watching(head) as progress:
            return head.fit(train.X, train.Y, progress=progress, checkpoint=self.checkpoint)

    def fit_with_folds(self, head: "Head", progress: "ProgressCallback") -> CrossFit:
        """Fit a head on train, and prepare what its fits without each fold share with that."""
        train = self.data.train
        with self.clock("fit"):
            return CrossFit(head, train.X, train.Y, train.groups, progress, self.checkpoint)

    def needs_folds(self, decoder: "Decoder") -> bool:
        """Whether a decoder is tuned on out-of-fold scores of train."""
        return decoder.tuned and self.request.tune == FOLDS

    def build(
        self,
        head: "Head",
        decoder: "Decoder",
        digests: RequestDigests,
        scores: NDArray[np.float32] | None = None,
        crossed: CrossFit | None = None,
    ) -> BuiltRun:
        """Tune the decoder, score valid, and learn from valid too if that is requested.

        Parameters
        ----------
        head : Head
            Fitted on train.
        decoder : Decoder
        digests : dict
            Those of `RunRequest.digest`.
        scores : ndarray of float32, shape (n_readable, n_concepts), optional
            Out-of-fold scores of train (`LabelledSplit.tuning`), if they are known.
        crossed : CrossFit, optional
            What else gives them: of this head on train.
        """
        train, valid = self.data.train, self.data.valid
        run = Run(self.request.name, head, decoder, self.request.decoder, self.request.pooling, train.vocabulary,
                  train.fallback)  # fmt: skip
        # A head that cannot be saved must not cost the folds, nor a submission that never comes.
        check_restores(head, self.request.name, train.X[:FEW])
        by_folds = self.needs_folds(decoder)
        valid_scores: Scores | None = None
        if self.request.train == BOTH or not by_folds:
            with self.clock("score"):
                valid_scores = run.score(valid.X) if valid else np.empty((0, len(train.vocabulary)), np.float32)
                if self.request.train == BOTH:
                    valid_scores = round_scores(valid_scores)  # as they are saved
        if by_folds:
            if scores is None:
                with self.clock("folds"), watching(head) as progress:
                    scores = crossed.score_folds(train.tuning_rows) if crossed else tuning_scores(head, train, progress)
            tuning: TuningData = scores, train.tuning.Y, None, train.tuning.groups
        else:
            assert valid_scores is not None
            tuning = self._label_valid(valid_scores)
        with self.clock("decode"):
            decoder.fit(*tuning)
            check_decoder_restores(decoder, self.request.decoder, tuning[0][:FEW])
        predicted: list[list[str]] = []
        official: ScoreMetrics | None = None
        if valid:
            with self.clock("score"):
                predicted = _predict_valid(run, valid, valid_scores)
            score = valid.score_concepts(predicted)
            official = score.to_metrics(tuned_here=decoder.tuned and not by_folds) if score else None
        folds, held_out = self._estimate_by_folds(decoder, tuning) if by_folds else (None, None)
        concepts = self._tabulate(predicted, held_out)
        nested = self._estimate(head, decoder, tuning) if self.request.nested else None
        if self.request.train == BOTH:
            run = replace(run, head=self._learn_from_both(head))
        metrics: RunMetrics = {
            "format": FORMAT,
            "head": self.request.name,
            "params": head.get_params(),
            "pooling": self.request.pooling,
            "decoder": {
                "name": self.request.decoder,
                "tuned_on": self.request.tune if decoder.tuned else None,
                "report": decoder.report(),
            },
            "valid": official,
            "folds": folds,
            "bands": concepts.count_bands(),
            "nested": nested,
            "train": self._describe_train(),
            "store": self._describe_store(),
            "versions": installed_versions(*PACKAGES),
            "seconds": dict(self.clock.seconds),
            "requests": digests,
        }
        before = valid_scores if self.request.train == BOTH else None
        return BuiltRun(run, metrics, valid.ids if valid else [], predicted, concepts, scores, before)

    def _estimate_by_folds(self, decoder: "Decoder", tuning: TuningData) -> tuple[EstimateMetrics, HeldOutConcepts]:
        """What head and decoder reach on folds of train, and the images and concepts that they predict there."""
        scores, Y, _, groups = tuning
        rows = np.arange(len(scores))
        if len(rows) > FOLDS_IMAGES:
            rows = np.sort(np.random.default_rng(0).choice(len(rows), FOLDS_IMAGES, replace=False))
        with self.clock("decode folds"):
            held_out = decode_held_out(decoder, scores[rows], Y[rows], None, None if groups is None else groups[rows])
            return summarise(image_f1(Y[rows], held_out), TRAIN), (rows, held_out)

    def _tabulate(self, predicted: list[list[str]], held_out: HeldOutConcepts | None) -> ConceptTable:
        """The table per concept: on valid, or else on folds of train."""
        train, valid = self.data.train, self.data.valid
        truth, on = (valid.concepts, VALID_SPLIT) if valid else ([], VALID_SPLIT)
        if not valid and held_out is not None:
            rows, indicator = held_out
            concepts, on = train.tuning.readable_concepts, "folds of train"
            truth = [concepts[row] for row in rows]
            predicted = columns_to_concepts(indicator, train.vocabulary, np.ones(len(rows), dtype=bool), [])
        return ConceptTable.from_predictions(
            truth, predicted, find_names(self.request.data), train.count_concepts(), on
        )

    def _label_valid(self, scores: Scores) -> TuningData:
        """What a decoder is fitted to if it is tuned on valid."""
        valid = self.data.valid
        if valid is None:
            return scores, scipy.sparse.csr_matrix(scores.shape, dtype=np.int64), np.zeros(0, np.int64), None
        return scores, valid.Y, valid.n_true, valid.groups

    def _estimate(self, head: "Head", decoder: "Decoder", tuning: TuningData) -> EstimateMetrics:
        """What head and decoder reach on images that neither has seen."""
        with self.clock("nested"), watching(head) as progress:
            if decoder.tuned and self.request.tune != FOLDS:
                return summarise(decoder_f1(decoder, *tuning), VALID_SPLIT)
            return summarise(nested_f1(head, decoder, self.data.train, progress), TRAIN)

    def _learn_from_both(self, head: "Head") -> "Head":
        """Fit a head with the same parameters on train and valid."""
        train, valid = self.data.train, self.data.valid
        assert valid is not None  # `check_labels` refuses it
        X, Y = join_features([train.X, valid.X]), scipy.sparse.vstack([train.Y, valid.Y], format="csr")
        checkpoint = self.checkpoint and self.checkpoint.with_stem(self.checkpoint.stem + ".both")
        with self.clock("fit on both"), watching(head) as progress:
            return head.with_params({}).fit(X, Y, progress=progress, checkpoint=checkpoint)

    def _describe_train(self) -> TrainMetrics:
        train, valid = self.data.train, self.data.valid
        in_valid = {concept for each in (valid.concepts if valid else []) for concept in each}
        counts = np.asarray(train.Y.sum(axis=0)).ravel()
        return {
            "splits": self.request.train,
            "n_images": train.Y.shape[0],
            "n_unreadable": int((~train.readable).sum()),
            "n_concepts": len(train.vocabulary),
            "ever_present": int((counts == train.Y.shape[0]).sum()),
            "valid_concepts_unseen": len(in_valid.difference(*train.readable_concepts)),
        }

    def _describe_store(self) -> StoreMetrics:
        store = self.data.store
        return {
            "fingerprint": store.fingerprint,
            "content": store.content,
            "weights": store.record["weights_source"],
            "provenance": json.loads(store.provenance.to_json()),
        }
