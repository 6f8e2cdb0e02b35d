"""Embeddings to scores to concept sets: interchangeable heads, decoders, and the runs that keep them.

A new head is one module with one class, and one line here.
"""

HEADS = {
    "dense": "heads.estimators.dense:DenseHead",
    "kernel": "heads.estimators.kernel:KernelHead",
    "knn": "heads.estimators.knn:KNeighborsHead",
    "logistic": "heads.estimators.logistic:LogisticHead",
    "prior": "heads.estimators.prior:PriorHead",
    "ridge": "heads.estimators.ridge:RidgeHead",
    "tail": "heads.estimators.tail:TailHead",
}
"""Name of each head and where its class is; resolved late, so that a head without Keras never loads it."""

DECODERS = {
    "fixed": "heads.decoders.thresholds:FixedThreshold",
    "global": "heads.decoders.thresholds:GlobalThreshold",
    "per-concept": "heads.decoders.thresholds:ConceptThresholds",
    "top-k": "heads.decoders.top_k:TopK",
    "expected-f1": "heads.decoders.expected_f1:ExpectedF1",
}
"""Name of each decoder and where its class is."""

CALIBRATIONS = {
    "temperature": "heads.decoders.calibration:Temperature",
    "platt": "heads.decoders.calibration:Platt",
}
"""Name of each calibration, which may stand before a decoder, and where its class is."""

USUAL_DECODER = "platt+expected-f1"
"""The decoder where none is named: with the head `kernel`, what folds of train choose
(`heads.selection.leaderboard`; DESIGN.md)."""
