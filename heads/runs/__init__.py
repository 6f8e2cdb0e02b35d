"""Runs: a folder with everything that a result needs."""
