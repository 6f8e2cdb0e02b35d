"""The request of an ensemble: its method and options, and the digest of everything that decides it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cache.support.errors import ParameterError
from heads.data.store import LabelledStore
from heads.decoders.base import Decoder
from heads.ensembles.ensemble import METHODS, MIXING
from heads.registry import make_decoder
from heads.runs.files import FORMAT
from heads.runs.metrics import RequestDigests
from heads.runs.predictor import StoredRun
from heads.runs.request import CHOICES, DEFAULTS, check_choice

ENSEMBLE = "ensemble"
"""The name of an ensemble where a run has the name of its head."""

UNUSED = "fixed:0.5"
"""The decoder of an ensemble that joins sets. It has no effect."""


@dataclass(frozen=True)
class EnsembleRequest:
    """What decides an ensemble, besides its members and their labels.

    Parameters
    ----------
    method : str
        One of `heads.ensembles.ensemble.METHODS`.
    decoder : str
        Such as ``fixed:0.3``.
    tune : str
        What weights and decoder are fitted to: ``folds``, out-of-fold scores of train, or ``valid``.
    nested : bool
        Whether a cross-validated estimate is made, too.
    """

    method: str
    decoder: str
    tune: str
    nested: bool

    @classmethod
    def resolve(
        cls, method: str, decoder: str | None = None, tune: str | None = None, nested: bool | None = None
    ) -> "EnsembleRequest":
        """Give every option that is None its default.

        Raises
        ------
        ParameterError
            The method, the decoder or the value of an option is unknown, or has no effect with this method.
        """
        check_choice("how", method, METHODS)
        if method not in MIXING and decoder is not None:
            raise ParameterError(
                f"how is '{method}', which joins the sets that each run's own decoder predicts, found decoder "
                f"'{decoder}'; leave it out, or mix scores: {', '.join(MIXING)}"
            )
        if method not in MIXING and nested:
            raise ParameterError(
                f"how is '{method}', which fits nothing that could be cross-validated; leave --nested out"
            )
        defaults = DEFAULTS if method in MIXING else DEFAULTS | {"decoder": UNUSED}
        options: dict[str, Any] = {"decoder": decoder, "tune": tune, "nested": nested}
        chosen = {key: defaults[key] if value is None else value for key, value in options.items()}
        check_choice("tune", chosen["tune"], CHOICES["tune"])
        request = cls(method, **chosen)
        request.make_decoder()
        return request

    def make_decoder(self) -> Decoder:
        """Make the decoder, not yet fitted."""
        return make_decoder(self.decoder)

    def to_json(self) -> dict[str, Any]:
        """The request as ``run.json`` has it."""
        return {"how": self.method, "decoder": self.decoder, "tune": self.tune, "nested": self.nested}

    def digest(self, members: Sequence[StoredRun], data: Sequence[LabelledStore]) -> RequestDigests:
        """Digests of the request and of what it reads, like those of `RunRequest.digest`; an ensemble has no head."""
        train, valid = data[0].train, data[0].valid
        whole = self.to_json() | {
            "format": FORMAT,
            "members": [[member.metrics["requests"]["whole"], member.content] for member in members],
            "labels": [train.files, valid.files if valid else {}],
            "groups": [each.groups_digest for each in data],
        }
        return {"head": "", "whole": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()}
