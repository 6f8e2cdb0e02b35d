"""Numerical optimisation, without the project's own types."""
