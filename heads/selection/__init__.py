"""Comparison of heads, decoders, parameters and recipes."""
