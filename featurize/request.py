"""What is asked of `featurize`, and how it compares with what a store already holds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cache.errors import UserError
from cache.provenance import Provenance
from cache.store import FeatureStore
from featurize.backbone import Backbone, Front
from featurize.decode import DECODING
from featurize.engines import Choice
from featurize.weights import describe_weights

DEFAULTS = {
    "backbone": "densenet121",
    "weights": "imagenet",
    "size": 224,
    "layer": "",
    "pooling": "avg",
    "engine": "auto",
    "precision": "auto",
}
"""What is asked for where the user left it open and there is no store to follow."""


@dataclass(frozen=True)
class Request:
    """The features that are asked for, every option settled.

    Parameters
    ----------
    backbone : Backbone
    engine, precision : str
        As `featurize.engines.choose` takes them.
    """

    backbone: Backbone
    engine: str
    precision: str

    @classmethod
    def settle(cls, given: Mapping[str, Any], store: FeatureStore | None) -> "Request":
        """Fill in what the user left open.

        Parameters
        ----------
        given : mapping
            The options that were given, under the names in `DEFAULTS`.
        store : FeatureStore or None
            The store that will be brought up to date. What is left open (or ``auto``) follows it, so that adding
            images needs no option repeated.
        """
        settled: dict[str, Any] = dict(DEFAULTS)
        if store is not None:
            facts = vars(store.provenance)
            settled |= {name: facts[name] for name in ("backbone", "size", "pooling", "engine", "precision")}
            settled |= store.record["asked"]
            given = {name: value for name, value in given.items() if value != "auto"}
        settled |= given
        engine, precision = str(settled.pop("engine")), str(settled.pop("precision"))
        name = str(settled.pop("backbone")).lower()
        return cls(Backbone(name, **settled), engine, precision)

    def to_record(self) -> dict[str, Any]:
        """What a store keeps of the request beside its facts."""
        asked = {"weights": self.backbone.weights, "layer": self.backbone.layer}
        return {"asked": asked, "weights_source": describe_weights(self.backbone.weights)}

    def to_provenance(self, front: Front, choice: Choice) -> Provenance:
        """The facts of the features that a built front gives."""
        return Provenance(
            backbone=self.backbone.name,
            weights=front.weights,
            layer=front.layer,
            pooling=self.backbone.pooling,
            size=self.backbone.size,
            decoding=DECODING,
            preprocessing=front.preprocessing,
            engine=choice.engine,
            precision=choice.precision,
        )

    def surely_matches(self, store: FeatureStore) -> bool:
        """Whether the store certainly holds what is asked for, told without building the network.

        False where it must be built to know: weights or layer are named differently, and may be the same ones.
        """
        asked = replace(
            store.provenance,
            backbone=self.backbone.name,
            size=self.backbone.size,
            pooling=self.backbone.pooling,
            engine=self.engine,
            precision=self.precision,
            decoding=DECODING,
        )
        same_weights = describe_weights(self.backbone.weights) == store.record["weights_source"]
        same_layer = self.backbone.layer in (store.record["asked"]["layer"], store.provenance.layer)
        return asked == store.provenance and same_weights and same_layer


def refuse_other_features(store: FeatureStore, wanted: Provenance) -> None:
    """Refuse to mix features.

    Raises
    ------
    UserError
        The store's facts differ from those wanted; each is named with its two values.
    """
    differences = store.provenance.differences(wanted)
    if differences:
        raise UserError(
            f"{store.path} holds other features than asked for: it has {'; '.join(differences)}; "
            "name another STORE (--store), or replace this one with --rebuild (make REBUILD=1)"
        )
