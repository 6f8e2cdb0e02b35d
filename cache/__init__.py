"""The feature store: one HDF5 file between the frozen network and the heads.

It holds embeddings and where they come from, and nothing else: no labels, which change with every
edition, and no network.
"""
