"""Provenance: the facts that decide the embeddings of a store. Their digest is the store's fingerprint.

Rows of two stores with the same fingerprint are interchangeable. Library versions and file names are recorded beside
the facts but are not among them: upgrading a library does not make a store stale.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from cache.support.json_file import check_type, parse_json

NO_POOLING = "none"
"""The pooling of a store that holds maps, for the rest of a cut network."""

SCHEMA = 1
"""Version of the store's layout; a reader refuses any other."""

OF_FILE = "sha256:"
"""What a source of weights begins with that is a file; the digest of its bytes follows."""

N_DIGITS = 12
"""Digits of a digest in messages: enough to tell two files apart."""


class WeightsOrigin(NamedTuple):
    """Where weights came from, as the user knows it; messages have this in place of the digest of their values.

    Parameters
    ----------
    name : str
        ``imagenet``, ``random:SEED`` or a path; empty if only the source is known.
    source : str
        ``imagenet``, ``random:SEED``, or ``sha256:`` and the digest of a file.
    """

    name: str
    source: str

    def describe(self, other: "WeightsOrigin", digest: str) -> str:
        """Name these weights so that they differ from other ones.

        Parameters
        ----------
        other : WeightsOrigin
            What they are compared with.
        digest : str
            Digest of the values of these weights.

        Examples
        --------
        >>> seed, file = WeightsOrigin("random:0", "random:0"), WeightsOrigin("a.h5", "sha256:0123456789abcdef")
        >>> seed.describe(file, "00"), file.describe(seed, "00")
        ('random:0', 'a.h5')
        >>> file.describe(WeightsOrigin("a.h5", "sha256:9876543210abcdef"), "00")
        'a.h5 (SHA-256 0123456789ab)'
        """
        mine, others = self._find_name(), other._find_name()
        if self.source == other.source:  # the same file or seed, and other values: another version of Keras
            return f"{mine or 'a file'} ({digest[:N_DIGITS]})"
        if self.source.startswith(OF_FILE) and (mine == others or not mine or not others):
            return f"{mine or 'a file'} (SHA-256 {self.source.removeprefix(OF_FILE)[:N_DIGITS]})"
        return mine

    def _find_name(self) -> str:
        """The name, also where the source tells it; empty for a file of unknown path."""
        return self.name or ("" if self.source.startswith(OF_FILE) else self.source)


@dataclass(frozen=True, repr=False)
class Provenance:
    """The facts that decide the numbers in a store.

    Parameters
    ----------
    backbone : str
        Name of a Keras application, in lower case: ``densenet121``.
    weights : str
        SHA-256 of the values of the weights, whatever file they came from.
    layer : str
        Name of the layer whose output is used; of several, in the order of the network, with commas between them.
    pooling : str
        How the map that this layer gives is pooled to one vector, or ``none`` if it stays a map. With several
        poolings (``avg,gem``) their vectors are side by side.
    size : int
        Side of the square image that the network receives, in pixels.
    decoding : str
        Version of the decoder: how a file becomes pixels.
    resizing : str
        How the image is resized to a square of `size`.
    preprocessing : str
        The Keras module whose ``preprocess_input`` is applied.
    engine : str
        What runs the network: ``openvino`` or ``tensorflow``.
    precision : str
        Arithmetic inside the engine: ``float32`` or ``bfloat16``.
    dtype : str
        Type in which embeddings are stored: ``float32`` or ``float16``.
    schema : int
        Version of the store's layout.
    joined : tuple of Provenance
        Those of the stores that a joined store is made of; empty for any other store. The facts above are then a
        summary for people.

    Examples
    --------
    >>> Provenance("densenet121", "00", "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
    Provenance(densenet121, layer relu, pooling avg, 224 px, openvino, float32; fingerprint 3ddb30d966c34636)
    """

    backbone: str
    weights: str
    layer: str
    pooling: str
    size: int
    decoding: str
    resizing: str
    preprocessing: str
    engine: str
    precision: str
    dtype: str = "float32"
    schema: int = SCHEMA
    joined: tuple["Provenance", ...] = ()

    def __repr__(self) -> str:
        return (
            f"Provenance({self.backbone}, layer {self.layer}, pooling {self.pooling}, {self.size} px, {self.engine}, "
            f"{self.precision}; fingerprint {self.fingerprint[:16]})"
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the facts, as hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The facts as JSON with sorted keys; the fingerprint is the digest of this text."""
        return json.dumps(self._find_facts(), sort_keys=True)

    def _find_facts(self) -> dict[str, Any]:
        facts = dict(vars(self)) | {"joined": [each._find_facts() for each in self.joined]}
        if not self.joined:
            del facts["joined"]  # so that the fingerprint of any other store does not depend on it
        return facts

    @classmethod
    def join(cls, members: Sequence["Provenance"]) -> "Provenance":
        """The provenance of a store that is joined of others, in this order."""

        def summarise(name: str) -> Any:
            values = list(dict.fromkeys(getattr(each, name) for each in members))
            return values[0] if len(values) == 1 else max(values) if name == "size" else "+".join(values)

        facts = {field.name: summarise(field.name) for field in fields(cls) if field.name not in ("schema", "joined")}
        facts["weights"] = hashlib.sha256("+".join(each.weights for each in members).encode()).hexdigest()
        facts["dtype"] = "float32" if any(each.dtype == "float32" for each in members) else "float16"
        return cls(**facts, joined=tuple(members))

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            The text is not JSON, or has other facts than this version knows.
        """
        facts = parse_json(text, dict[str, Any])
        joined = check_type(facts.pop("joined", []), list[dict[str, Any]])
        return replace(cls._from_facts(facts), joined=tuple(map(cls._from_facts, joined)))

    @classmethod
    def _from_facts(cls, facts: Mapping[str, Any]) -> "Provenance":
        names = {field.name for field in fields(cls)} - {"joined"}
        if set(facts) != names:
            raise ValueError(f"a provenance needs exactly {', '.join(sorted(names))}")
        kinds = {field.name: int if field.type is int or field.type == "int" else str for field in fields(cls)}
        odd = [name for name, value in facts.items() if type(value) is not kinds[name]]
        if odd:
            raise ValueError(f"fact '{odd[0]}' is {facts[odd[0]]!r}")
        return cls(**facts)

    def differences(self, other: "Provenance", origins: tuple[WeightsOrigin, WeightsOrigin] | None = None) -> list[str]:
        """Each fact in which two provenances differ, with both values.

        Parameters
        ----------
        other : Provenance
        origins : pair of WeightsOrigin, optional
            Where the weights of the two came from. Without it, weights are the first digits of their digests.

        Examples
        --------
        >>> a = Provenance("densenet121", "00", "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
        >>> b = Provenance("densenet121", "00", "relu", "avg", 255, "1", "bilinear", "densenet", "openvino", "float32")
        >>> a.differences(b)
        ['size 224, not 255']
        """
        mine, others = vars(self).copy(), vars(other).copy()
        mine["joined"], others["joined"] = len(self.joined), len(other.joined)
        differing = [name for name in mine if mine[name] != others[name]]
        mine["weights"], others["weights"] = self.weights[:N_DIGITS], other.weights[:N_DIGITS]
        if origins:
            here, there = origins
            mine["weights"], others["weights"] = here.describe(there, self.weights), there.describe(here, other.weights)
        return [f"{name} {mine[name]}, not {others[name]}" for name in differing]
