"""The heads: scikit-learn classifiers from embeddings to scores. One file per head."""
