"""The request of a run: every option with a value, and digests that show whether a run already answers it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.support.errors import ParameterError
from heads.data.store import LabelledStore
from heads.registry import DEFAULT_DECODER, make_decoder, make_head
from heads.runs.files import FORMAT, REQUEST, damaged
from heads.runs.folder import read_request
from heads.runs.metrics import RequestDigests

if TYPE_CHECKING:
    from heads.decoders.base import Decoder
    from heads.estimators.base import Head

TRAIN, BOTH = "train", "train+valid"
"""What the saved head of a run learns from."""

FOLDS, VALID_SPLIT = "folds", "valid"
"""What a decoder is tuned on: out-of-fold scores of train, or valid."""

DEFAULTS: dict[str, Any] = {
    "params": {}, "concepts": [], "decoder": DEFAULT_DECODER, "pooling": "", "train": TRAIN, "tune": FOLDS,
    "nested": False,
}  # fmt: skip
"""Every option with its default, for where neither the caller nor an earlier run gives a value."""

CHOICES = {"train": (TRAIN, BOTH), "tune": (FOLDS, VALID_SPLIT)}
"""The values of the options that have few."""


@dataclass(frozen=True)
class RunRequest:
    """What decides a run.

    Parameters
    ----------
    name : str
        The head's name in the registry.
    data, store : str
        Absolute paths of the data folder and the store.
    params : dict
        Parameters of the head.
    concepts : list of str
        The concepts to learn; those of train if empty.
    decoder : str
        Such as ``fixed:0.3``.
    pooling : str
        Names of parts of the store's features, with commas between them; all parts if empty.
    train : str
        ``train``, or ``train+valid`` if the saved head learns from both, after everything else was chosen on train.
    tune : str
        ``folds`` or ``valid``.
    nested : bool
        Whether a nested cross-validated estimate is made, too.
    """

    name: str
    data: str
    store: str
    params: dict[str, Any]
    concepts: list[str]
    decoder: str
    pooling: str
    train: str
    tune: str
    nested: bool

    @classmethod
    def resolve(cls, name: str, store: Path, data: Path, out: Path, options: Mapping[str, Any]) -> "RunRequest":
        """Give every option a value.

        An option that is None has the value of the run in `out`, if that is of the same head and data, and its default
        otherwise.

        Parameters
        ----------
        name : str
            A head of the registry.
        store, data, out : Path
            The store, the data folder, and the folder of the run.
        options : mapping
            The keys of `DEFAULTS`; those that are missing count as None.

        Raises
        ------
        ParameterError
            The head, the decoder, a parameter or the value of an option is unknown.
        """
        places = {"data": str(data.absolute()), "store": str(store.absolute())}
        earlier: dict[str, Any] = dict(read_request(out) or {})
        follows = earlier.get("name") == name and earlier.get("data") == places["data"]
        defaults = DEFAULTS | {key: earlier[key] for key in DEFAULTS if follows and key in earlier}
        chosen = {key: defaults[key] if options.get(key) is None else options[key] for key in DEFAULTS}
        for key, choices in CHOICES.items():
            check_choice(key, chosen[key], choices)
        copies = {"params": dict(chosen["params"]), "concepts": sorted(set(chosen["concepts"]))}
        request = cls(name, places["data"], places["store"], **chosen | copies)
        if not request.is_of(earlier):
            request.make_head(), request.make_decoder()  # refuse what is unknown before anything is read
        return request

    @classmethod
    def read(cls, folder: Path) -> "RunRequest":
        """Read the request of a run.

        Raises
        ------
        RunError
            There is no run of this version, or it is an ensemble.
        """
        found: dict[str, Any] = dict(read_request(folder) or {})
        missing = [field.name for field in fields(cls) if field.name not in found]
        if missing:
            raise damaged(folder, f"{REQUEST} has no '{missing[0]}'")
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    def is_of(self, stored: Mapping[str, Any] | None) -> bool:
        """Whether this is the request that a run was made for, as it is stored in the run's folder."""
        return stored is not None and all(stored.get(key) == value for key, value in vars(self).items())

    def make_head(self) -> "Head":
        """Make the head, not yet fitted.

        Raises
        ------
        ParameterError
            The head or a parameter is unknown, or a value is out of its range.
        """
        return make_head(self.name, self.params)

    def make_decoder(self) -> "Decoder":
        """Make the decoder, not yet fitted.

        Raises
        ------
        ParameterError
            A name is unknown, or the decoder does not take the value.
        """
        return make_decoder(self.decoder)

    def digest(self, params: Mapping[str, Any], data: LabelledStore) -> RequestDigests:
        """Digests of the request and of what it reads.

        Parameters
        ----------
        params : mapping
            All parameters of the head, also those that have their defaults.
        data : LabelledStore

        Returns
        -------
        dict
            ``head``, of what decides the head that learns from train, and ``whole``, of what decides the result.
        """
        # The number of processes changes no result.
        deciding = {key: value for key, value in params.items() if key != "n_jobs"}
        learnt = {
            "format": FORMAT,
            "head": self.name,
            "params": deciding,
            "concepts": self.concepts,
            "pooling": self.pooling,
            "store": data.store.content,
            "labels": data.train.files,
            "groups": data.groups_digest,
        }
        if data.store.has_maps:
            # Which layers of the tail are frozen.
            learnt["layer"] = data.store.record["asked"]["layer"]
        decoded = {
            "decoder": self.decoder,
            "tune": self.tune,
            "train": self.train,
            "nested": self.nested,
            "labels": data.valid.files if data.valid else {},
        }
        return {"head": _digest(learnt), "whole": _digest([learnt, decoded])}


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has one of a few values.

    Raises
    ------
    ParameterError
        It has another one; the message lists the choices.
    """
    if value not in choices:
        raise ParameterError(f"{name} is '{value}', expected {', '.join(choices[:-1])} or {choices[-1]}")
