"""The names of heads, decoders and calibrations. Adding one is a file in its folder and a line here."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from cache.support.errors import ParameterError

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head

HEADS = {
    "dense": "heads.estimators.dense:DenseHead",
    "kernel": "heads.estimators.kernel:KernelHead",
    "knn": "heads.estimators.knn:KNeighborsHead",
    "logistic": "heads.estimators.logistic:LogisticHead",
    "prior": "heads.estimators.prior:PriorHead",
    "ridge": "heads.estimators.ridge:RidgeHead",
    "tail": "heads.estimators.tail:TailHead",
}
"""Name and class of each head. Classes are imported when they are used, so that a head without Keras never loads it."""

DECODERS = {
    "fixed": "heads.decoders.thresholds:FixedThreshold",
    "global": "heads.decoders.thresholds:GlobalThreshold",
    "per-concept": "heads.decoders.thresholds:ConceptThresholds",
    "top-k": "heads.decoders.top_k:TopK",
    "expected-f1": "heads.decoders.expected_f1:ExpectedF1",
}
"""Name and class of each decoder."""

CALIBRATIONS = {
    "temperature": "heads.decoders.calibration:Temperature",
    "platt": "heads.decoders.calibration:Platt",
}
"""Name and class of each calibration. It may stand before a decoder, as in ``platt+expected-f1``."""

DEFAULT_DECODER = "platt+expected-f1"
"""The default decoder: with the head `kernel` it scored best on folds of train (docs/decisions)."""

EMPTY = "empty"
"""Lets a decoder predict no concept at all: ``global,empty``."""


def make_head(name: str, params: Mapping[str, Any] | None = None) -> "Head":
    """Make a head by its name.

    Parameters
    ----------
    name : str
        One of `HEADS`.
    params : mapping of str to object, optional
        Its parameters; the defaults for those that are left out.

    Raises
    ------
    ParameterError
        The head or a parameter is unknown (the known ones are listed), or a value is out of its range; or its class
        lacks a method.
    """
    if name not in HEADS:
        raise ParameterError(f"no head '{name}'; there are {', '.join(HEADS)}")
    head: Head = _require_methods(resolve_name(HEADS[name]), f"head '{name}'")()
    known = head.get_params(deep=False)
    unknown = [key for key in params or {} if key not in known]
    if unknown:
        raise ParameterError(f"head '{name}': Invalid parameter '{unknown[0]}'; there are {list(known)}")
    head.set_params(**(params or {}))
    try:
        head.check_params()
    except ParameterError as error:
        raise ParameterError(f"head '{name}': {error}") from error
    return head


def make_decoder(text: str) -> "Decoder":
    """Make a decoder from its name, as in ``fixed:0.3``, ``global,empty`` or ``platt+expected-f1``.

    Parameters
    ----------
    text : str
        ``[CALIBRATION+]NAME[:VALUE][,empty]``: names from `CALIBRATIONS` and `DECODERS`, a value that the decoder
        takes, and ``empty`` to let an image have no concept.

    Raises
    ------
    ParameterError
        A name is unknown (the known ones are listed), or the decoder does not take the value.
    """
    calibration, plus, rest = text.rpartition("+")
    if plus and calibration not in CALIBRATIONS:
        raise ParameterError(
            f"no calibration '{calibration}'; there are {', '.join(CALIBRATIONS)}, such as {DEFAULT_DECODER}"
        )
    words, *options = rest.split(",")
    name, colon, value = words.partition(":")
    if name not in DECODERS:
        raise ParameterError(f"no decoder '{name}'; there are {', '.join(DECODERS)}, such as fixed:0.3")
    if options not in ([], [EMPTY]):
        raise ParameterError(f"decoder '{text}': expected nothing or '{EMPTY}' after the comma, such as {name},{EMPTY}")
    kind: type[Decoder] = _require_methods(resolve_name(DECODERS[name]), f"decoder '{name}'")
    try:
        params = kind.parse(value) if colon else {}
    except ParameterError as error:
        raise ParameterError(f"decoder '{text}': {error}") from None
    decoder = kind(**params, may_be_empty=bool(options))
    if not plus:
        return decoder
    calibrated: Decoder = resolve_name("heads.decoders.calibrated:Calibrated")(
        _require_methods(resolve_name(CALIBRATIONS[calibration]), f"calibration '{calibration}'")(), decoder
    )
    return calibrated


def _require_methods(kind: type, what: str) -> Any:
    """A class, if it has every method that its base asks for."""
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise ParameterError(f"{what}: {kind.__name__} lacks {', '.join(missing)}; see docs/your-own-head.md")
    return kind
