"""The features that a user requests, and how they compare with those that a store holds."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.feature_parts import PartsRecord, name_layer_parts
from cache.provenance import NO_POOLING, OF_FILE, Provenance, WeightsOrigin
from cache.store import FeatureStore
from cache.support.errors import ParameterError, StoreError
from featurize.applications import APPLICATIONS
from featurize.backbone import Backbone, Cut, find_application
from featurize.decoding.image import DECODING, DECODING_BEFORE_DICOM, RESIZING
from featurize.engines.base import Engine
from featurize.engines.registry import AUTO, check_precision, find_engine
from featurize.layers import refuse_several_maps, split_layers
from featurize.pooling import POOLINGS, split_poolings
from featurize.weights import describe_weights

DEFAULTS: dict[str, Any] = {
    "backbone": "densenet121",
    "weights": "imagenet",
    "size": 224,
    "layer": "",
    "pooling": "avg",
    "engine": AUTO,
    "precision": AUTO,
    "dtype": AUTO,
}
"""The options, and their values where the user gives none and there is no store to follow."""

DTYPES = ("float32", "float16")
"""How numbers are stored. The default is the first for embeddings, and the second for maps, which are 200 times as
large."""

_FACTS = ("backbone", "size", "pooling", "engine", "precision", "dtype")
"""The options whose values are facts of the provenance as they are."""


@dataclass(frozen=True)
class Request:
    """The requested features, with a value for every option.

    Parameters
    ----------
    backbone : Backbone
    engine, precision : str
        As `featurize.engines.registry.choose_engine` takes them.
    dtype : str
        How embeddings are stored, one of `DTYPES`.
    weights_source : str
        Identity of the weights, from `featurize.weights.describe_weights`.
    decoding : str
        Version of the decoder.
    """

    backbone: Backbone
    engine: str
    precision: str
    dtype: str

    weights_source: str
    decoding: str = DECODING

    @classmethod
    def resolve(cls, options: Mapping[str, Any], store: FeatureStore | None, rebuild: bool = False) -> "Request":
        """Fill in the options that the user left out.

        Parameters
        ----------
        options : mapping of str to object
            The given options, under the names in `DEFAULTS`.
        store : FeatureStore or None
            The store that will be brought up to date. Options that are left out (or ``auto``) follow it, so that
            adding images needs no option repeated.
        rebuild : bool
            Read the weights file of the store again, if it is still there.

        Returns
        -------
        Request

        Raises
        ------
        ParameterError
            An option has an unknown value, or its file is missing.
        """
        values = dict(DEFAULTS)
        if store is not None:
            options = {name: value for name, value in options.items() if value != AUTO}
            values |= _options_of(store, options)
        values |= options
        follows = store and "weights" not in options and values["weights"] == store.record["asked"]["weights"]
        if store and follows and not (rebuild and Path(values["weights"]).is_file()):
            source = str(store.record["weights_source"])  # the file itself need not be there any more
        else:
            source = describe_weights(values["weights"])
        if values["dtype"] == AUTO:
            values["dtype"] = "float16" if values["pooling"] == NO_POOLING else "float32"
        engine, precision, dtype = (str(values.pop(name)) for name in ("engine", "precision", "dtype"))
        name = str(values.pop("backbone")).lower()
        values["pooling"] = _follow_pooling(values["pooling"], None if rebuild and "pooling" in options else store)
        # The order in which layers are given changes nothing.
        values["layer"] = ",".join(split_layers(values["layer"]))
        refuse_several_maps(values["layer"], values["pooling"])
        is_earlier = store is not None and store.provenance.decoding == DECODING_BEFORE_DICOM
        decoding = DECODING_BEFORE_DICOM if is_earlier else DECODING
        return cls(Backbone(name, **values), engine, precision, dtype, source, decoding)

    def to_record(self) -> dict[str, Any]:
        """What a store records of the request, besides the provenance."""
        name, source = self.weights_origin
        return {"asked": {"weights": name, "layer": self.backbone.layer}, "weights_source": source}

    @property
    def weights_origin(self) -> WeightsOrigin:
        """Where the weights come from."""
        is_file = self.weights_source.startswith(OF_FILE)
        name = str(Path(self.backbone.weights).absolute()) if is_file else self.backbone.weights
        return WeightsOrigin(name, self.weights_source)

    def name_parts(self, cut: Cut) -> PartsRecord | None:
        """Names and widths of the parts of an embedding, where there are several layers."""
        return name_layer_parts(cut.layers, split_poolings(self.backbone.pooling), cut.widths) if cut.widths else None

    def to_provenance(self, cut: Cut, engine: Engine) -> Provenance:
        """The provenance of the features that a front gives."""
        return Provenance(
            backbone=self.backbone.name,
            weights=cut.weights,
            layer=cut.layer,
            pooling=self.backbone.pooling,
            size=self.backbone.size,
            decoding=self.decoding,
            resizing=RESIZING,
            preprocessing=cut.preprocessing,
            engine=engine.name,
            precision=engine.precision,
            dtype=self.dtype,
        )

    def surely_matches(self, store: FeatureStore) -> bool:
        """Whether the store certainly holds the requested features; found out without building the network.

        False where only the built network can tell: weights or layer have another name, and may be the same.
        """
        requested = replace(
            store.provenance,
            backbone=self.backbone.name,
            size=self.backbone.size,
            pooling=self.backbone.pooling,
            engine=self.engine,
            precision=self.precision,
            dtype=self.dtype,
            decoding=self.decoding,
            resizing=RESIZING,
        )
        same_weights = self.weights_source == store.record["weights_source"]
        # With maps, a requested layer after the cut decides which layers of the tail are frozen.
        known = () if store.has_maps else (store.provenance.layer,)
        same_layer = split_layers(self.backbone.layer) in map(split_layers, (store.record["asked"]["layer"], *known))
        return requested == store.provenance and same_weights and same_layer


def follow_parts(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The given options, in which names of parts of a store stand for its pooling: heads select features by them.

    Parameters
    ----------
    options : mapping of str to object
        The given options, under the names in `DEFAULTS`.
    path : Path
        The store, which need not exist.
    """
    names = {name.strip() for name in options.get("pooling", NO_POOLING).split(",")}
    if path.exists() and not names & {*POOLINGS, NO_POOLING}:
        with suppress(StoreError):  # it is reported when the store is needed
            store = FeatureStore(path)
            if names <= {*next(iter(store.splits.values())).parts.names}:
                return {**options, "pooling": store.provenance.pooling}
    return dict(options)


def check_options(options: Mapping[str, Any]) -> None:
    """Check the values of options by themselves, before they are compared with a store or anything is built.

    Parameters
    ----------
    options : mapping of str to object
        The given options, under the names in `DEFAULTS`.

    Raises
    ------
    ParameterError
        A value is unknown; the message lists the known ones.
    """
    name = str(options.get("backbone", DEFAULTS["backbone"])).lower()
    if name not in APPLICATIONS:
        find_application(name)  # imports Keras, which may be of a version that has it
    if options.get("engine", AUTO) != AUTO:
        find_engine(options["engine"])
    if "precision" in options:
        check_precision(options["precision"])
    if options.get("dtype", AUTO) not in (AUTO, *DTYPES):
        raise ParameterError(f"dtype '{options['dtype']}': expected one of {', '.join(DTYPES)}")
    if options.get("pooling", NO_POOLING) != NO_POOLING:
        split_poolings(options["pooling"])
    refuse_several_maps(options.get("layer", DEFAULTS["layer"]), options.get("pooling", DEFAULTS["pooling"]))


def refuse_other_options(store: FeatureStore, options: Mapping[str, Any]) -> None:
    """Refuse options that describe other features than a store holds, before anything is built.

    Raises
    ------
    StoreError
        The message has each fact with both values.
    """
    facts = {name: options[name] for name in _FACTS if name in options and options[name] != AUTO}
    if "backbone" in facts:
        facts["backbone"] = facts["backbone"].lower()
    if "pooling" in facts:
        facts["pooling"] = _follow_pooling(facts["pooling"], store)
    refuse_other_features(store, replace(store.provenance, **facts), store.weights_origin)


def refuse_other_features(store: FeatureStore, wanted: Provenance, origin: WeightsOrigin) -> None:
    """Refuse to mix features.

    Parameters
    ----------
    store : FeatureStore
    wanted : Provenance
        The facts of the requested features.
    origin : WeightsOrigin
        Where the requested weights come from.

    Raises
    ------
    StoreError
        The store's facts differ from those wanted; the message has each with both values.
    """
    differences = store.provenance.differences(wanted, (store.weights_origin, origin))
    if differences:
        raise StoreError(
            f"{store.path}: holds other features than requested: it has {'; '.join(differences)}; "
            "name another STORE (--store), or replace this one with --rebuild (make REBUILD=1)"
        )


def _follow_pooling(text: str, store: FeatureStore | None) -> str:
    """The requested poolings in their fixed order, or all poolings of a store that has these and more."""
    if text == NO_POOLING:
        return text
    requested = split_poolings(text)
    stored = store.provenance.pooling.split(",") if store else []
    return ",".join(stored if set(requested) <= set(stored) else requested)


def _options_of(store: FeatureStore, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that made a store, without those that depend on an option with another value now."""
    facts = vars(store.provenance)
    options: dict[str, Any] = {name: facts[name] for name in _FACTS} | store.record["asked"]
    if given.get("backbone", facts["backbone"]).lower() != facts["backbone"]:
        options = {name: value for name, value in options.items() if name not in ("weights", "layer")}
    if given.get("engine", facts["engine"]) != facts["engine"]:
        del options["precision"]
    return options
