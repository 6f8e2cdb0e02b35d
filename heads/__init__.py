"""Embeddings to scores to concept sets: interchangeable heads, decoders, and the runs that keep them.

A new head is one module with one class, and one line here.
"""

HEADS = {
    "dense": "heads.dense:DenseHead",
    "kernel": "heads.kernel:KernelHead",
    "knn": "heads.knn:KNeighborsHead",
    "logistic": "heads.logistic:LogisticHead",
    "prior": "heads.prior:PriorHead",
    "ridge": "heads.ridge:RidgeHead",
    "tail": "heads.tail:TailHead",
}
"""Name of each head and where its class is; resolved late, so that a head without Keras never loads it."""

DECODERS = {
    "fixed": "heads.thresholds:FixedThreshold",
    "global": "heads.thresholds:GlobalThreshold",
    "per-concept": "heads.thresholds:ConceptThresholds",
    "top-k": "heads.ranking:TopK",
    "expected-f1": "heads.expected:ExpectedF1",
}
"""Name of each decoder and where its class is."""

CALIBRATIONS = {
    "temperature": "heads.calibration:Temperature",
    "platt": "heads.calibration:Platt",
}
"""Name of each calibration, which may stand before a decoder, and where its class is."""

USUAL_DECODER = "platt+expected-f1"
"""The decoder where none is named: with the head `kernel`, what folds of train choose (`heads.choosing`; DESIGN.md)."""
