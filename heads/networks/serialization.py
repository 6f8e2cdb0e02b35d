"""Networks as text: layers in JSON and weights apart, so that a run consists of text and arrays only."""

import json
from collections.abc import Iterator
from typing import Any

from cache.support.errors import RunError
from cache.support.messages import describe_error
from heads.networks.backend import import_keras

PARTS = ("activations", "constraints", "initializers", "layers", "regularizers")
MODULES, INSIDE = ("keras", *(f"keras.{part}" for part in PARTS)), ("keras.src.models.", "keras.src.ops.")
"""Modules that the parts of a network may come from: full names, and beginnings of names."""

PLAIN = ("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__")
"""Class names that Keras writes without a module; they stand for data."""

UNSAFE = ("Lambda", "TorchModuleWrapper", "TFSMLayer")
"""Layers of Keras that run code from the file."""


def to_text(network: Any) -> str:
    """Layers of a Keras model as JSON, without weights."""
    text: str = network.to_json()
    return text


def from_text(text: str, policy: str = "float32") -> Any:
    """Build an untrained Keras model from a text that may come from a stranger.

    Parameters
    ----------
    text : str
        From `to_text`.
    policy : str
        Keras' dtype policy of the layers, such as ``mixed_bfloat16``.

    Raises
    ------
    RunError
        The text is not a model of Keras' own layers.
    """
    keras = import_keras()
    try:
        config = json.loads(text)
        for each in _objects(config):
            _check_is_from_keras(each)
            if each["class_name"] == "DTypePolicy":
                each["config"]["name"] = policy
        return keras.models.model_from_json(json.dumps(config))
    # Keras reports damaged or malicious text in many ways.
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        why = describe_error(error)[:200]
        raise RunError(f"not a network of Keras' own layers ({why}); train the run again with `make head`") from error


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """All parts of a configuration from which Keras would make an object."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for each in config.values():
            yield from _objects(each)
    elif isinstance(config, list):
        for each in config:
            yield from _objects(each)


def _check_is_from_keras(config: dict[str, Any]) -> None:
    """Refuse a part that is not one of Keras: Keras would import its module and call its class."""
    module, name = config.get("module"), config["class_name"]
    if module is None and name in PLAIN:
        return
    own = module in MODULES or (isinstance(module, str) and module.startswith(INSIDE))
    if not own or not isinstance(name, str) or name in UNSAFE:
        raise ValueError(f"it has {module}.{name}")
