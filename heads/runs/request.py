"""What is asked of a run: every option settled, and digests that tell whether a run already answers it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.support.errors import UserError
from heads.data.store import LabelledStore
from heads.decoders.base import Decoder
from heads.estimators.base import Head
from heads.registry import DEFAULT_DECODER
from heads.runs.run import FORMAT, read_asked

TRAIN, BOTH = "train", "train+valid"
"""What the head of a run learns from in the end."""

FOLDS, VALID_SPLIT = "folds", "valid"
"""What a decoder is tuned on: out-of-fold scores of train, or valid."""

OPEN: dict[str, Any] = {
    "params": {}, "concepts": [], "decoder": DEFAULT_DECODER, "pooling": "", "train": TRAIN, "tune": FOLDS,
    "nested": False,
}  # fmt: skip
"""Every option, and what it is if neither the user nor the run that is there says otherwise."""

CHOICES = {"train": (TRAIN, BOTH), "tune": (FOLDS, VALID_SPLIT)}


@dataclass(frozen=True)
class Asked:
    """A request.

    Parameters
    ----------
    name : str
        The head's name in the registry.
    data, store : str
        Absolute paths of the data folder and the store.
    params : dict
        Parameters of the head.
    concepts : list of str
        What is learnt; all that train shows if empty.
    decoder : str
        Such as ``fixed:0.3``.
    pooling : str
        Which of a store's several poolings; empty for all of them, side by side.
    train : str
        ``train``, or ``train+valid`` once all is settled.
    tune : str
        ``folds`` or ``valid``.
    nested : bool
        Whether a cross-validated estimate is made too.
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
    def settle(cls, name: str, data: Path, store: Path, out: Path, given: Mapping[str, Any]) -> "Asked":
        """Let what the user left open, None, follow the run that is there, if it is of the same head and data.

        Raises
        ------
        UserError
            An option has a value that it cannot have.
        """
        places = {"data": str(data.absolute()), "store": str(store.absolute())}
        held = read_asked(out) or {}
        follows = held.get("name") == name and held.get("data") == places["data"]
        usual = OPEN | {key: held[key] for key in OPEN if follows and key in held}
        options = {key: usual[key] if given.get(key) is None else given[key] for key in OPEN}
        for key, choices in CHOICES.items():
            check_choice(key, options[key], choices)
        copies = {"params": dict(options["params"]), "concepts": sorted(set(options["concepts"]))}
        return cls(name, places["data"], places["store"], **options | copies)

    def digests(self, head: Head, decoder: Decoder, source: LabelledStore) -> dict[str, str]:
        """Digests of what decides the head that learns from train, and of what decides the whole result."""
        # The number of processes changes no result.
        params = {key: value for key, value in head.get_params().items() if key != "n_jobs"}
        learnt = {
            "format": FORMAT,
            "head": self.name,
            "params": params,
            "concepts": self.concepts,
            "pooling": self.pooling,
            "store": source.store.content,
            "labels": source.train.files,
            "groups": source.groups_digest,
        }
        if source.store.has_maps:
            # Which layers of the tail are frozen.
            learnt["layer"] = source.store.record["asked"]["layer"]
        decoded = {
            "decoder": self.decoder,
            "tune": self.tune,
            "train": self.train,
            "nested": self.nested,
            "labels": source.valid.files if source.valid else {},
        }
        texts = {"head": json.dumps(learnt, sort_keys=True), "whole": json.dumps([learnt, decoded], sort_keys=True)}
        return {key: hashlib.sha256(text.encode()).hexdigest() for key, text in texts.items()}


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has a value that it can have.

    Raises
    ------
    UserError
        It has not; the possible ones are listed.
    """
    if value not in choices:
        raise UserError(f"{name} is '{value}', expected {', '.join(choices[:-1])} or {choices[-1]}")
