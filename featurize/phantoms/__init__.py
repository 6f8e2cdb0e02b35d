"""Phantoms: radiology-like pictures that the project draws itself, in the official layout.

With them a fresh clone runs without a download, and tests without patients. Every concept that a phantom is labelled
with can be seen in it. Half of the concepts are rare, as in the real data.
"""
