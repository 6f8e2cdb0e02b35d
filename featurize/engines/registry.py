"""The names of the engines, and the choice among them. Adding one is a file beside this one and a line here."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from cache.support.devices import POLICIES, has_nvidia_device
from cache.support.errors import NotInstalledError, ParameterError
from cache.support.reporting import warn

if TYPE_CHECKING:
    from featurize.engines.base import Engine

AUTO = "auto"
"""Leaves the choice of engine or precision to the project."""

ENGINES = {
    "openvino": "featurize.engines.openvino:OpenVINOEngine",
    "tensorflow": "featurize.engines.tensorflow:TensorFlowEngine",
    "jax": "featurize.engines.jax:JaxEngine",
}
"""Name and class of each engine, in the order in which ``auto`` prefers them. Classes are imported when they are
used."""


@dataclass(frozen=True)
class Choice:
    """A chosen engine.

    Parameters
    ----------
    engine : Engine
    why : str
        The reason, in words.
    """

    engine: "Engine"
    why: str


def find_engine(name: str) -> "type[Engine]":
    """The class of an engine.

    Raises
    ------
    ParameterError
        The name is unknown; the message lists the known ones.
    """
    if name not in ENGINES:
        raise ParameterError(f"engine '{name}': expected one of {', '.join((AUTO, *ENGINES))}")
    kind: type[Engine] = resolve_name(ENGINES[name])
    return kind


def check_precision(name: str) -> None:
    """Check the name of a precision.

    Raises
    ------
    ParameterError
        It is unknown; the message lists the known ones.
    """
    precisions = (AUTO, *POLICIES)
    if name not in precisions:
        raise ParameterError(f"precision '{name}': expected one of {', '.join(precisions)}")


def list_distributions() -> list[str]:
    """The pip distributions of all engines."""
    return [distribution for name in ENGINES for distribution in find_engine(name).distributions]


def choose_engine(engine: str = AUTO, precision: str = AUTO) -> Choice:
    """Choose engine and precision for this machine.

    Parameters
    ----------
    engine : str
        One of `ENGINES`, or ``auto``: the first that sees a GPU, else the first that is installed.
    precision : str
        One of `cache.support.devices.POLICIES`, or ``auto``: the fastest that the engine has here.

    Raises
    ------
    ParameterError
        A name is unknown, or the engine does not compute in this precision here.
    NotInstalledError
        The engine is not installed; the message has the line that installs it.

    Warns
    -----
    DataWarning
        There is a GPU, and the engine does not see it.
    """
    if engine != AUTO:
        find_engine(engine)
    check_precision(precision)
    reasons = []
    if engine == AUTO:
        engine, why = _choose_automatically()
        reasons.append(why)
    kind = find_engine(engine)
    if not kind.is_installed():
        others = [name for name in ENGINES if find_engine(name).is_installed()]
        choice = f", or choose {' or '.join(others)}" if others else ""
        raise NotInstalledError(f"engine '{engine}' is not installed: {kind.pip_line}{choice}")
    n_gpus, native = len(kind.find_gpus()), kind.find_native_precision()
    if not n_gpus and has_nvidia_device():
        lines = (
            [kind.cuda_line] if kind.cuda_line else [line for each in ENGINES if (line := find_engine(each).cuda_line)]
        )
        warn(f"this machine has a GPU that is not used: the engine {engine} does not see it; {' or '.join(lines)}")
    if precision == AUTO:
        precision = native
        reasons.append(f"{native} is its fastest arithmetic here")
    if precision not in ("float32", native):
        raise ParameterError(
            f"precision '{precision}': this machine has {' and '.join(dict.fromkeys((native, 'float32')))} with the "
            f"engine {engine}; choose one, or auto"
        )
    return Choice(kind(precision, n_gpus), "; ".join(reasons) or "as requested, or as before")


def _choose_automatically() -> tuple[str, str]:
    """The first engine that sees a GPU, else the first that is installed; and why."""
    kinds = {name: find_engine(name) for name in ENGINES}
    installed = [name for name, kind in kinds.items() if kind.is_installed()]
    for name in installed:
        gpus = kinds[name].find_gpus()
        if gpus:
            return name, f"on {len(gpus)} x {gpus[0]}"
    if not installed:
        lines = "; ".join(f"{name}: {kind.pip_line}" for name, kind in kinds.items())
        raise NotInstalledError(f"no engine is installed; expected one of these: {lines}")
    first, *_ = ENGINES
    return installed[0], "no GPU" if installed[0] == first else f"{first} is not installed"
