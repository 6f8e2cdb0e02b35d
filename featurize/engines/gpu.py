"""What the engines that can use a GPU have in common."""

import os
from dataclasses import dataclass

from featurize.engines.base import Engine

BATCH, GPU_BATCH = 16, 128
"""Images per batch on a CPU, and on a GPU."""

GPU_UNIT_BATCHES = 32
"""Batches per unit of work on a GPU."""

MIN_DECODERS = 4
"""With fewer cores, threads decode as fast as processes."""


@dataclass(frozen=True)
class GpuEngine(Engine):
    """One compiled function per process, on a GPU of its own or on every core."""

    @property
    def batch(self) -> int:
        """Images per batch."""
        return GPU_BATCH if self.n_gpus else BATCH

    @property
    def layer_precision(self) -> str:
        """Its own: Keras' layers are built in it."""
        return self.precision

    @property
    def decoders(self) -> int:
        """As many processes as there would be threads, for a GPU and where there are some cores."""
        return self.threads if self.n_gpus and self.threads >= MIN_DECODERS and hasattr(os, "memfd_create") else 0

    @property
    def unit_images(self) -> int:
        """Images per unit of work."""
        return GPU_UNIT_BATCHES * self.batch if self.n_gpus else super().unit_images
