"""Parts of an embedding: one per pooling, per layer or per joined store, side by side in the columns of a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cache.support.errors import ParameterError
from cache.support.json_file import check_type
from cache.support.messages import some

Columns = slice | NDArray[np.int64]


class PartsRecord(TypedDict):
    """What the record of a store says of its parts, if they are not the poolings of one layer."""

    names: list[str]
    widths: list[int]


class _Record(TypedDict):
    parts: NotRequired[PartsRecord]


@dataclass(frozen=True)
class FeatureParts:
    """Names and widths of the parts of an embedding, in the order of their columns.

    Parameters
    ----------
    names : tuple of str
        Such as ``("avg", "gem")``.
    widths : tuple of int
        Number of features of each.
    pooling : str
        The poolings of all parts together. That text selects all parts.

    Examples
    --------
    >>> parts = FeatureParts(("avg", "max", "gem"), (4, 4, 2))
    >>> parts.find_columns("max"), parts.find_columns("gem,max"), parts.find_columns("avg,gem")
    (slice(4, 8, None), slice(4, 10, None), array([0, 1, 2, 3, 8, 9]))
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    pooling: str = field(default="", compare=False)

    @classmethod
    def read(cls, pooling: str, record: Mapping[str, Any], n_features: int) -> "FeatureParts":
        """The parts of a store.

        Parameters
        ----------
        pooling : str
            The poolings of the provenance. They are the parts, of equal width, unless the record has others.
        record : mapping
            The record of the store.
        n_features : int
            Width of the embeddings.

        Raises
        ------
        ValueError
            The parts do not fit the embeddings.
        """
        found = check_type({key: record[key] for key in ("parts",) if key in record}, _Record).get("parts")
        names = tuple(found["names"] if found else pooling.split(","))
        widths = tuple(found["widths"] if found else (n_features // len(names) for _ in names))
        if len(set(names)) != len(names) or len(names) != len(widths) or any(width < 1 for width in widths):
            raise ValueError("parts of an embedding need a name and a width each")
        if sum(widths) != n_features:
            raise ValueError(f"embeddings of {n_features} features cannot be divided into parts of {widths}")
        return cls(names, widths, pooling)

    def find_columns(self, wanted: str) -> Columns:
        """The columns of some parts, in the order of the store.

        Parameters
        ----------
        wanted : str
            Names, with commas between them.

        Returns
        -------
        slice or ndarray of int
            A slice where the parts are neighbours.

        Raises
        ------
        ParameterError
            There is no such part.
        """
        chosen = self.split(wanted)
        ends = list(accumulate(self.widths))
        places = [self.names.index(name) for name in chosen]
        spans = [range(ends[place] - self.widths[place], ends[place]) for place in places]
        if places == list(range(places[0], places[-1] + 1)):
            return slice(spans[0].start, spans[-1].stop)
        return np.concatenate([np.arange(span.start, span.stop) for span in spans])

    def measure(self, wanted: str) -> int:
        """How many features some parts have."""
        return sum(self.widths[self.names.index(name)] for name in self.split(wanted))

    def split(self, wanted: str) -> list[str]:
        """The names in a text, each once, in the order of the store.

        Raises
        ------
        ParameterError
            There is no such part.
        """
        if wanted == self.pooling:
            return list(self.names)
        names = [name.strip() for name in wanted.split(",")]
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ParameterError(f"no features '{unknown[0]}'; there are {some(self.names, 12)}")
        return [name for name in self.names if name in names]


def name_layer_parts(layers: Sequence[str], poolings: Sequence[str], widths: Sequence[int]) -> PartsRecord:
    """Name the parts of an embedding from several layers: the poolings of one layer are neighbours.

    >>> name_layer_parts(["pool3", "relu"], ["avg"], [2, 3])
    {'names': ['pool3', 'relu'], 'widths': [2, 3]}
    >>> name_layer_parts(["pool3", "relu"], ["avg", "gem"], [2, 3])
    {'names': ['pool3.avg', 'pool3.gem', 'relu.avg', 'relu.gem'], 'widths': [2, 2, 3, 3]}
    """
    names = [f"{layer}.{pooling}" if len(poolings) > 1 else layer for layer in layers for pooling in poolings]
    return {"names": names, "widths": [width for width in widths for _ in poolings]}


def name_parts(stems: Sequence[str], parts: Sequence[FeatureParts]) -> PartsRecord:
    """Name the parts of joined stores after the names of their files, as far as these differ.

    >>> one, two = FeatureParts(("avg",), (3,)), FeatureParts(("avg", "max"), (2, 2))
    >>> name_parts(["mix.densenet121", "mix.xception"], [one, two])["names"]
    ['densenet121', 'xception.avg', 'xception.max']
    >>> name_parts(["mix.densenet121", "mix.densenet121.448"], [one, one])["names"]
    ['densenet121', 'densenet121.448']
    """
    words = [stem.split(".") for stem in stems]
    differing = (n for n, each in enumerate(zip(*words, strict=False)) if len(set(each)) > 1)
    shared = next(differing, min(map(len, words)) - 1)
    short = [".".join(each[shared:]) or each[-1] for each in words]
    short = [name if short.count(name) == 1 else f"{name}.{number}" for number, name in enumerate(short, 1)]
    short = [name.replace(",", "_") for name in short]
    names = [
        name if len(each.names) == 1 else f"{name}.{part}"
        for name, each in zip(short, parts, strict=True)
        for part in each.names
    ]
    return {"names": names, "widths": [width for each in parts for width in each.widths]}
