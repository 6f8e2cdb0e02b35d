"""Phantoms: radiology-like pictures that the project draws itself, in the official layout.

They let a fresh clone run without any download, and tests without any patient. Every concept that a phantom is
labelled with can be seen in it; half of the concepts are rare, as in the real data.
"""
