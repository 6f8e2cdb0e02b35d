"""A batch that becomes smaller where the memory of a GPU does not suffice."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import UserError
from cache.support.reporting import warn

Infer = Callable[[NDArray[np.uint8]], Any]


class ShrinkingBatch:
    """Embeds a batch at once, or in halves, quarters, … of it: the largest part that memory suffices for.

    Parameters
    ----------
    compile_for : callable
        Takes a number of images and gives the function that embeds that many.
    is_out_of_memory : callable
        Whether an error means that memory did not suffice.
    """

    def __init__(self, compile_for: Callable[[int], Infer], is_out_of_memory: Callable[[BaseException], bool]) -> None:
        self._compile_for, self._is_out_of_memory = compile_for, is_out_of_memory
        self._infer: Infer | None = None
        self._size, self._n_parts = 0, 1

    def __call__(self, images: NDArray[np.uint8]) -> Any:
        """Embed images.

        Raises
        ------
        UserError
            Memory does not suffice for a single image.

        Warns
        -----
        DataWarning
            Smaller batches are tried.
        """
        while True:
            size = len(images) // self._n_parts
            try:
                if self._infer is None or size != self._size:
                    self._infer, self._size = self._compile_for(size), size
                parts = [self._infer(images[start : start + size]) for start in range(0, len(images), size)]
                return parts[0] if len(parts) == 1 else np.concatenate([np.asarray(part) for part in parts])
            except Exception as error:
                if not self._is_out_of_memory(error):
                    raise
                if size % 2:
                    raise UserError(
                        f"the GPU has no memory for {size} image at once; end other programs that use it, or choose "
                        "another engine (ENGINE=openvino)"
                    ) from error
            self._infer, self._n_parts = None, 2 * self._n_parts
            warn(f"the GPU has no memory for {size} images at once; trying {size // 2}")
