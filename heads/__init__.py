"""Embeddings to scores to concept sets: interchangeable heads, decoders, and the runs that keep them."""
