"""What is asked of `featurize`, and how it compares with what a store already holds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.provenance import NO_POOLING, Provenance
from cache.store import FeatureStore
from cache.support.errors import UserError
from featurize.backbone import Backbone, Cut, split_poolings
from featurize.decoding.image import DECODING, RESIZING
from featurize.engines.base import Choice
from featurize.weights import describe_weights

DEFAULTS = {
    "backbone": "densenet121",
    "weights": "imagenet",
    "size": 224,
    "layer": "",
    "pooling": "avg",
    "engine": "auto",
    "precision": "auto",
    "dtype": "auto",
}
"""What is asked for where the user left it open and there is no store to follow."""

DTYPES = ("float32", "float16")
"""How numbers are stored; left open, embeddings take the first and maps, two hundred times as many, the second."""

_NAMED = ("backbone", "size", "pooling", "engine", "precision", "dtype")
"""The options whose values stand in the provenance as they are."""


@dataclass(frozen=True)
class Request:
    """The features that are asked for, every option settled.

    Parameters
    ----------
    backbone : Backbone
    engine, precision : str
        As `featurize.engines.base.choose` takes them.
    dtype : str
        How embeddings are stored, one of `DTYPES`.
    weights_source : str
        What the weights are, told without loading them; see `featurize.weights.describe_weights`.
    """

    backbone: Backbone
    engine: str
    precision: str
    dtype: str

    weights_source: str

    @classmethod
    def settle(cls, given: Mapping[str, Any], store: FeatureStore | None, rebuild: bool = False) -> "Request":
        """Fill in what the user left open.

        Parameters
        ----------
        given : mapping
            The options that were given, under the names in `DEFAULTS`.
        store : FeatureStore or None
            The store that will be brought up to date. What is left open (or ``auto``) follows it, so that adding
            images needs no option repeated.
        rebuild : bool
            Look at a weights file that the store names again, if it is there.

        Raises
        ------
        UserError
            An option is unknown or its file is missing.
        """
        settled: dict[str, Any] = dict(DEFAULTS)
        if store is not None:
            given = {name: value for name, value in given.items() if value != "auto"}
            settled |= _held(store, given)
        settled |= given
        follows = store and "weights" not in given and settled["weights"] == store.record["asked"]["weights"]
        if store and follows and not (rebuild and Path(settled["weights"]).is_file()):
            source = store.record["weights_source"]  # the file itself need not be there any more
        else:
            source = describe_weights(settled["weights"])
        if settled["dtype"] == "auto":
            settled["dtype"] = "float16" if settled["pooling"] == NO_POOLING else "float32"
        engine, precision, dtype = (str(settled.pop(name)) for name in ("engine", "precision", "dtype"))
        if dtype not in DTYPES:
            raise UserError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}")
        name = str(settled.pop("backbone")).lower()
        settled["pooling"] = _follow_pooling(settled["pooling"], None if rebuild and "pooling" in given else store)
        return cls(Backbone(name, **settled), engine, precision, dtype, source)

    def to_record(self) -> dict[str, Any]:
        """What a store keeps of the request beside its facts."""
        is_file = self.weights_source.startswith("sha256:")
        weights = str(Path(self.backbone.weights).absolute()) if is_file else self.backbone.weights
        return {"asked": {"weights": weights, "layer": self.backbone.layer}, "weights_source": self.weights_source}

    def to_provenance(self, cut: Cut, choice: Choice) -> Provenance:
        """The facts of the features that a front gives."""
        return Provenance(
            backbone=self.backbone.name,
            weights=cut.weights,
            layer=cut.layer,
            pooling=self.backbone.pooling,
            size=self.backbone.size,
            decoding=DECODING,
            resizing=RESIZING,
            preprocessing=cut.preprocessing,
            engine=choice.engine,
            precision=choice.precision,
            dtype=self.dtype,
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
            dtype=self.dtype,
            decoding=DECODING,
            resizing=RESIZING,
        )
        same_weights = self.weights_source == store.record["weights_source"]
        # What is asked for beyond the cut decides which layers of the tail are frozen.
        known = () if store.has_maps else (store.provenance.layer,)
        same_layer = self.backbone.layer in (store.record["asked"]["layer"], *known)
        return asked == store.provenance and same_weights and same_layer


def refuse_other_options(store: FeatureStore, given: Mapping[str, Any]) -> None:
    """Refuse options that name other features than a store holds, before anything is built.

    Raises
    ------
    UserError
        Each fact is named with its two values.
    """
    facts = {name: given[name] for name in _NAMED if name in given and given[name] != "auto"}
    if "backbone" in facts:
        facts["backbone"] = facts["backbone"].lower()
    if "pooling" in facts:
        facts["pooling"] = _follow_pooling(facts["pooling"], store)
    refuse_other_features(store, replace(store.provenance, **facts))


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


def _follow_pooling(text: str, store: FeatureStore | None) -> str:
    """Poolings in their one order; those of a store that has them and more, since it holds what is asked for."""
    if text == NO_POOLING:
        return text
    asked = split_poolings(text)
    held = store.provenance.pooling.split(",") if store else []
    return ",".join(held if set(asked) <= set(held) else asked)


def _held(store: FeatureStore, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a store holds, less what depends on an option that is given another value."""
    facts = vars(store.provenance)
    held = {name: facts[name] for name in _NAMED} | store.record["asked"]
    if given.get("backbone", facts["backbone"]).lower() != facts["backbone"]:
        held = {name: value for name, value in held.items() if name not in ("weights", "layer")}
    if given.get("engine", facts["engine"]) != facts["engine"]:
        del held["precision"]
    return held
