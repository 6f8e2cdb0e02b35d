"""Networks as text: their layers in JSON, their weights apart, so that a run holds nothing but text and arrays."""

import json
from collections.abc import Iterator
from typing import Any

from cache.support.errors import UserError
from heads.networks.backend import import_keras

PARTS = ("activations", "constraints", "initializers", "layers", "regularizers")
MODULES, INSIDE = ("keras", *(f"keras.{part}" for part in PARTS)), ("keras.src.models.", "keras.src.ops.")
"""Where the parts of a network come from: whole names, and beginnings."""

PLAIN = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")
"""What Keras writes with a class name and no module, and is data."""

UNSAFE = ("Lambda", "TorchModuleWrapper", "TFSMLayer")
"""Keras' own layers that run what they hold."""


def to_text(network: Any) -> str:
    """The layers of a Keras model, without their weights."""
    text: str = network.to_json()
    return text


def from_text(text: str, policy: str = "float32") -> Any:
    """Build the Keras model of a text, whoever wrote it; its weights are untrained.

    Parameters
    ----------
    text : str
        From `to_text`.
    policy : str
        Keras' name for the precision in which its layers compute, such as ``mixed_bfloat16``.

    Raises
    ------
    UserError
        It is no model of Keras' own layers.
    """
    keras = import_keras()
    try:
        config = json.loads(text)
        for each in _objects(config):
            _refuse_foreign(each)
            if each["class_name"] == "DTypePolicy":
                each["config"]["name"] = policy
        return keras.models.model_from_json(json.dumps(config))
    # Damage and malice make Keras fail in many ways.
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"not a network of Keras' own layers ({why}); train the run again with `make head`") from error


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a configuration that Keras would make an object of."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for each in config.values():
            yield from _objects(each)
    elif isinstance(config, list):
        for each in config:
            yield from _objects(each)


def _refuse_foreign(config: dict[str, Any]) -> None:
    """Keras imports the module that a configuration names, and calls the class: only its own are let through."""
    module, name = config.get("module"), config["class_name"]
    if module is None and name in PLAIN:
        return
    own = module in MODULES or (isinstance(module, str) and module.startswith(INSIDE))
    if not own or not isinstance(name, str) or name in UNSAFE:
        raise ValueError(f"it holds {module}.{name}")
