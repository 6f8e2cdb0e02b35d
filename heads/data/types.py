"""Names for the arrays that decoders, estimates and runs pass on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""One score per image and concept, shape (n_images, n_concepts)."""

Counts = NDArray[np.int64] | None
"""How many concepts each image truly has, shape (n_images,), those without a column of their own included.

None means the row sums of the indicator matrix.
"""

Groups = NDArray[Any] | None
"""The group of each image, such as its patient, shape (n_images,). Images of one group stay in one fold."""

Arrays = dict[str, NDArray[Any]]
"""Named arrays, such as what a head has learnt."""
