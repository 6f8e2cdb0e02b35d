"""Provenance: the facts that decide the embeddings of a store. Their digest is the store's fingerprint.

Rows of two stores with the same fingerprint are interchangeable. Library versions and file names are recorded beside
the facts but are not among them: upgrading a library does not make a store stale.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

NO_POOLING = "none"
"""The pooling of a store that holds maps, for the rest of a cut network."""

SCHEMA = 1
"""Version of the store's layout; a reader refuses any other."""


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
        Name of the layer whose output is used.
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
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            The text is not JSON, or has other facts than this version knows.
        """
        facts = json.loads(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(facts, dict) or set(facts) != names:
            raise ValueError(f"a provenance needs exactly {', '.join(sorted(names))}")
        kinds = {field.name: int if field.type is int or field.type == "int" else str for field in fields(cls)}
        odd = [name for name, value in facts.items() if type(value) is not kinds[name]]
        if odd:
            raise ValueError(f"fact '{odd[0]}' is {facts[odd[0]]!r}")
        return cls(**facts)

    def differences(self, other: "Provenance") -> list[str]:
        """Each fact in which two provenances differ, with both values.

        Examples
        --------
        >>> a = Provenance("densenet121", "00", "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
        >>> b = Provenance("densenet121", "00", "relu", "avg", 255, "1", "bilinear", "densenet", "openvino", "float32")
        >>> a.differences(b)
        ['size 224, not 255']
        """
        mine, others = asdict(self), asdict(other)
        return [f"{name} {mine[name]}, not {others[name]}" for name in mine if mine[name] != others[name]]
