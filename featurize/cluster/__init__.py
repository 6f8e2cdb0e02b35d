"""Embedding on a cluster of Dask: the coordinator, the workers that it has checked, the units that they get."""
