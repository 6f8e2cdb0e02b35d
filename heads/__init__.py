"""From embeddings to sets of concepts.

A head is an estimator in the sense of scikit-learn: it learns from embeddings and an indicator matrix, and gives one
score per image and concept. A decoder turns scores into sets of concepts. A run is a folder with both and their
scores.

Each folder may import those before it:

- ``data``: the images of a store with their labels, groups, folds and official score
- ``decoders``: from scores to sets of concepts, with or without calibration
- ``networks``: everything that needs Keras
- ``solvers``: numerical optimisation
- ``estimators``: the heads
- ``evaluation``: out-of-fold scores and cross-validation
- ``runs``: make a run, predict with it, export it
- ``ensembles``: several runs as one
- ``selection``: compare heads, decoders and parameters

`registry` has the names of heads, decoders and calibrations.
"""

from typing import TYPE_CHECKING

from cache.support.lazy_names import lazy_names

if TYPE_CHECKING:
    from heads.data.split import LabelledSplit
    from heads.data.store import LabelledStore
    from heads.decoders.base import Decoder
    from heads.ensembles.builder import make_ensemble
    from heads.ensembles.ensemble import Ensemble
    from heads.ensembles.prediction import predict_run
    from heads.estimators.base import Head
    from heads.estimators.dense import DenseHead
    from heads.estimators.kernel import KernelHead
    from heads.estimators.knn import KNeighborsHead
    from heads.estimators.logistic import LogisticHead
    from heads.estimators.prior import PriorHead
    from heads.estimators.ridge import RidgeHead
    from heads.estimators.tail import TailHead
    from heads.evaluation.cross_validation import nested_f1
    from heads.evaluation.out_of_fold import out_of_fold_scores
    from heads.registry import CALIBRATIONS, DECODERS, HEADS, make_decoder, make_head
    from heads.runs.builder import fit_run
    from heads.runs.keras_model import export_run
    from heads.runs.run import Run
    from heads.selection.best import find_best
    from heads.selection.leaderboard import choose
    from heads.selection.sweep import sweep_runs

__all__ = [
    "CALIBRATIONS",
    "DECODERS",
    "HEADS",
    "Decoder",
    "DenseHead",
    "Ensemble",
    "Head",
    "KNeighborsHead",
    "KernelHead",
    "LabelledSplit",
    "LabelledStore",
    "LogisticHead",
    "PriorHead",
    "RidgeHead",
    "Run",
    "TailHead",
    "choose",
    "export_run",
    "find_best",
    "fit_run",
    "make_decoder",
    "make_ensemble",
    "make_head",
    "nested_f1",
    "out_of_fold_scores",
    "predict_run",
    "sweep_runs",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "__version__": "cache.support.versions",
        "CALIBRATIONS": "heads.registry",
        "DECODERS": "heads.registry",
        "HEADS": "heads.registry",
        "Decoder": "heads.decoders.base",
        "DenseHead": "heads.estimators.dense",
        "Ensemble": "heads.ensembles.ensemble",
        "Head": "heads.estimators.base",
        "KNeighborsHead": "heads.estimators.knn",
        "KernelHead": "heads.estimators.kernel",
        "LabelledSplit": "heads.data.split",
        "LabelledStore": "heads.data.store",
        "LogisticHead": "heads.estimators.logistic",
        "PriorHead": "heads.estimators.prior",
        "RidgeHead": "heads.estimators.ridge",
        "Run": "heads.runs.run",
        "TailHead": "heads.estimators.tail",
        "choose": "heads.selection.leaderboard",
        "find_best": "heads.selection.best",
        "export_run": "heads.runs.keras_model",
        "fit_run": "heads.runs.builder",
        "make_decoder": "heads.registry",
        "make_ensemble": "heads.ensembles.builder",
        "make_head": "heads.registry",
        "nested_f1": "heads.evaluation.cross_validation",
        "out_of_fold_scores": "heads.evaluation.out_of_fold",
        "predict_run": "heads.ensembles.prediction",
        "sweep_runs": "heads.selection.sweep",
    },
)
