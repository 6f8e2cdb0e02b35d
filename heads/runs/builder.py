"""From a fitted head to a run: the decoder is tuned, valid is scored, and valid joins train if that is asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cache.support.errors import UserError
from cache.support.files import write_text
from cache.support.reporting import report, warn
from cache.support.versions import installed_versions
from eval.editions import MAX_CONCEPTS, find_edition
from eval.run_folder import VALID
from eval.submission import render_submission, write_submission
from heads.data.folds import VALID_SCORES, save_scores, score_out_of_fold
from heads.data.split import indicator, join_features
from heads.data.store import LabelledStore
from heads.data.types import Counts, Groups, Scores
from heads.decoders.base import Decoder
from heads.estimators.base import Head
from heads.evaluation.cross_validation import estimate, estimate_decoder, summarise
from heads.evaluation.official_score import describe, score_valid
from heads.runs.progress import Clock, watching
from heads.runs.request import BOTH, FOLDS, TRAIN, VALID_SPLIT, Asked
from heads.runs.run import FORMAT, METRICS, Run, prepare_folder, usual_set

VERSIONS = ("h5py", "keras", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu")
HeldOut = tuple[Scores, scipy.sparse.csr_matrix, Counts, Groups]
"""What `Decoder.fit` takes."""


@dataclass(frozen=True)
class Made:
    """A run before it is kept.

    Parameters
    ----------
    run : Run
    metrics : dict
    valid_ids : list of str
    predicted : list of list of str
        The concepts of each image of valid.
    scores : ndarray of float32 or None
        Out-of-fold scores of train, if a decoder has been tuned on them.
    valid_scores : ndarray of float32 or None
        Scores of valid by the head that had not learnt from it, if the one that is kept has.
    """

    run: Run
    metrics: dict[str, Any]
    valid_ids: list[str]
    predicted: list[list[str]]
    scores: Scores | None
    valid_scores: Scores | None

    def keep(self, out: Path, asked: Asked) -> None:
        """Write the run's folder, its metrics last."""
        prepare_folder(out, {"format": FORMAT} | vars(asked))
        self.run.save(out)
        if self.scores is not None:
            save_scores(self.scores, out)
        if self.valid_scores is not None:
            save_scores(self.valid_scores, out, VALID_SCORES)
        if self.valid_ids:
            # 2024's format is the one that every tool of the field reads.
            plain = find_edition(2024)
            write_submission(out / VALID, render_submission(self.valid_ids, self.predicted, plain), plain)
        write_text(out / METRICS, json.dumps(self.metrics, indent=1))


@dataclass(frozen=True)
class Maker:
    """Makes runs from one labelled store."""

    asked: Asked
    source: LabelledStore
    clock: Clock

    def fit(self, head: Head) -> Head:
        """Fit a head on train."""
        with self.clock("fit"), watching(head):
            return head.fit(*self.source.learn_from(self.source.train))

    def assess(
        self, head: Head, decoder: Decoder, requests: dict[str, str], scores: NDArray[np.float32] | None = None
    ) -> Made:
        """Tune the decoder, score on valid, and learn from valid too if that is asked.

        Parameters
        ----------
        head : Head
            Fitted on train.
        decoder : Decoder
        requests : dict of str to str
            The digests of `Asked.digests`.
        scores : ndarray of float32, optional
            Out-of-fold scores, if they are known.
        """
        source, valid = self.source, self.source.valid
        X, Y = source.learn_from(source.train)
        run = Run(self.asked.name, head, decoder, self.asked.decoder, self.asked.pooling, source.vocabulary,
                  usual_set(Y, source.vocabulary, MAX_CONCEPTS))  # fmt: skip
        with self.clock("score"):
            valid_scores = run.score(valid.X, valid.readable) if valid else np.empty((0, Y.shape[1]), np.float32)
        by_folds = decoder.tuned and self.asked.tune == FOLDS
        held_out = self._label_valid(decoder, valid_scores)
        if by_folds:
            if scores is None:
                with self.clock("folds"), watching(head):
                    scores = score_out_of_fold(head, X, Y, source.groups)
            held_out = scores, Y, None, source.groups
        with self.clock("decode"):
            decoder.fit(*held_out)
            predicted = run.name_concepts(valid_scores, valid.readable) if valid else []
            official = score_valid(valid, predicted, decoder.tuned and not by_folds) if valid else None
        nested = self._estimate(head, decoder, held_out) if self.asked.nested else None
        if self.asked.train == BOTH:
            run = replace(run, head=self._learn_from_both(head))
        metrics = {
            "format": FORMAT,
            "head": self.asked.name,
            "params": head.get_params(),
            "pooling": self.asked.pooling,
            "decoder": {
                "name": self.asked.decoder,
                "tuned_on": self.asked.tune if decoder.tuned else None,
                "report": decoder.report(),
            },
            "valid": official,
            "nested": nested,
            "train": self._describe_train(Y),
            "store": _describe_store(source),
            "versions": installed_versions(*VERSIONS),
            "seconds": dict(self.clock.seconds),
            "requests": requests,
        }
        before = valid_scores if self.asked.train == BOTH else None
        return Made(run, metrics, valid.ids if valid else [], predicted, scores, before)

    def _label_valid(self, decoder: Decoder, scores: Scores) -> HeldOut:
        """What `Decoder.fit` takes of valid."""
        if decoder.tuned and self.asked.tune != FOLDS and not len(scores):
            raise UserError(f"decoder '{self.asked.decoder}' is tuned on valid, which has no image that can be read; "
                            "tune by folds (TUNE=folds) or use fixed:0.3")  # fmt: skip
        valid = self.source.valid
        concepts = valid.readable_concepts if valid else []
        n_true = np.array([len(each) for each in concepts], dtype=np.int64)
        return scores, indicator(concepts, self.source.vocabulary), n_true, self.source.valid_groups

    def _estimate(self, head: Head, decoder: Decoder, held_out: HeldOut) -> dict[str, Any]:
        """What head and decoder reach on images that neither has seen."""
        with self.clock("nested"), watching(head):
            if decoder.tuned and self.asked.tune != FOLDS:
                return summarise(estimate_decoder(decoder, *held_out), VALID_SPLIT)
            X, Y = self.source.learn_from(self.source.train)
            return summarise(estimate(head, decoder, X, Y, self.source.groups), TRAIN)

    def _learn_from_both(self, head: Head) -> Head:
        """Fit a head with the same parameters on train and valid."""
        if self.source.valid is None:
            raise UserError(f"TRAIN={BOTH}: the store has no split 'valid'; use TRAIN=train")
        parts = [self.source.learn_from(split) for split in (self.source.train, self.source.valid)]
        X = join_features([part[0] for part in parts])
        both = head.with_params({})
        if head.checkpoint:
            both.checkpoint = head.checkpoint.with_stem(head.checkpoint.stem + ".both")
        with self.clock("fit on both"), watching(both):
            return both.fit(X, scipy.sparse.vstack([part[1] for part in parts], format="csr"))

    def _describe_train(self, Y: scipy.sparse.csr_matrix) -> dict[str, Any]:
        train, valid = self.source.train, self.source.valid
        shown = {concept for each in (valid.concepts if valid else []) for concept in each}
        unseen = shown.difference(*train.readable_concepts)
        counts = np.asarray(Y.sum(axis=0)).ravel()
        return {
            "splits": self.asked.train,
            "n_images": int(train.readable.sum()),
            "n_unreadable": int((~train.readable).sum()),
            "n_concepts": len(self.source.vocabulary),
            "ever_present": int((counts == Y.shape[0]).sum()),
            "valid_concepts_unseen": len(unseen),
        }

    def tell(self, out: Path, metrics: Mapping[str, Any]) -> None:
        """Say what was learnt, and what is odd about it."""
        train, seconds = metrics["train"], metrics["seconds"].get("fit", 0.0)
        if train["n_unreadable"]:
            warn(f"{train['n_unreadable']:,} training images cannot be read and were left out")
        if train["ever_present"]:
            warn(f"{train['ever_present']:,} concepts are in every training image; every image is given them")
        if train["valid_concepts_unseen"]:
            warn(f"{train['valid_concepts_unseen']:,} concepts of valid are never in train; they count as missed")
        learnt = f"{train['n_concepts']:,} concepts from {train['n_images']:,} images in {seconds:.1f} s"
        report(f"{out}: {learnt} ({describe(metrics)})")


def _describe_store(source: LabelledStore) -> dict[str, Any]:
    store = source.store
    return {
        "fingerprint": store.fingerprint,
        "content": store.content,
        "weights": store.record["weights_source"],
        "provenance": json.loads(store.provenance.to_json()),
    }
