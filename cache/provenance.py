"""Where embeddings come from: the declared facts, whose digest is a store's fingerprint.

Two stores with the same fingerprint hold interchangeable rows. Library versions and file names are recorded
beside the facts but are not among them: upgrading a library does not make a store stale.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

NO_POOLING = "none"
"""The pooling of a store that holds maps, for what follows the cut."""

SCHEMA = 1
"""Version of the store's layout; a reader refuses any other."""


@dataclass(frozen=True)
class Provenance:
    """The facts that decide the numbers in a store.

    Parameters
    ----------
    backbone : str
        Keras application, in lower case: ``densenet121``.
    weights : str
        SHA-256 of the weights' values, whatever file they came in.
    layer : str
        Name of the layer whose output is taken.
    pooling : str
        How that output's map becomes one vector, or ``none`` where it stays a map. Of several (``avg,gem``) the
        vectors stand side by side.
    size : int
        Side of the square image that the network sees, in pixels.
    decoding : str
        Version of the decoder: how a file becomes pixels.
    resizing : str
        How pixels become a square of `size`.
    preprocessing : str
        The Keras module whose ``preprocess_input`` is applied.
    engine : str
        What executes the network: ``openvino`` or ``tensorflow``.
    precision : str
        The arithmetic inside the engine: ``float32`` or ``bfloat16``.
    dtype : str
        How embeddings are stored: ``float32`` or ``float16``.
    schema : int
        Version of the store's layout.
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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the facts, as hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The facts as JSON with sorted keys, the form that the fingerprint digests."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            The text is not JSON, or holds other facts than this version knows.
        """
        facts = json.loads(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(facts, dict) or set(facts) != names:
            raise ValueError(f"provenance must hold {', '.join(sorted(names))}")
        kinds = {field.name: int if field.type is int or field.type == "int" else str for field in fields(cls)}
        odd = [name for name, value in facts.items() if type(value) is not kinds[name]]
        if odd:
            raise ValueError(f"fact '{odd[0]}' is {facts[odd[0]]!r}")
        return cls(**facts)

    def differences(self, other: "Provenance") -> list[str]:
        """Name each fact in which two provenances differ, with both values.

        >>> a = Provenance("densenet121", "00", "relu", "avg", 224, "1", "bilinear", "densenet", "openvino", "float32")
        >>> b = Provenance("densenet121", "00", "relu", "avg", 255, "1", "bilinear", "densenet", "openvino", "float32")
        >>> a.differences(b)
        ['size 224, not 255']
        """
        mine, others = asdict(self), asdict(other)
        return [f"{name} {mine[name]}, not {others[name]}" for name in mine if mine[name] != others[name]]
