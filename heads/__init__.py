"""Embeddings to scores to concept sets: interchangeable heads, decoders, and the runs that keep them.

A new head is one module with one class, and one line here.
"""

HEADS = {
    "dense": "heads.dense:DenseHead",
    "knn": "heads.knn:KNeighborsHead",
    "logistic": "heads.logistic:LogisticHead",
    "prior": "heads.prior:PriorHead",
    "ridge": "heads.ridge:RidgeHead",
}
"""Name of each head and where its class is; resolved late, so that a head without Keras never loads it."""

DECODERS = {
    "fixed": "heads.decoders:FixedThreshold",
    "global": "heads.decoders:GlobalThreshold",
}
"""Name of each decoder and where its class is."""
