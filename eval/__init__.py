"""Concept files, the official scores, submissions. Needs nothing of the other packages, nor TensorFlow."""
