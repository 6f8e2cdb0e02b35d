"""Choosing among heads, decoders and parameters."""
