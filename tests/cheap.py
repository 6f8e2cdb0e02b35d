"""Making features with a network that costs nothing, so that a test can afford to kill it many times.

Run as a program, it makes a store. Options make it die, or meet trouble, at a given moment.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.support.command import run_command
from featurize import pipeline as features
from featurize.__main__ import KEPT
from featurize.backbone import Cut
from featurize.engines.base import Engine, FrontFiles
from featurize.engines.registry import Choice
from featurize.pipeline import make_features
from featurize.prepared_network import Network

SIZE = 8
UNIT_IMAGES = 4
GIVEN: dict[str, Any] = {"weights": "random:0", "size": SIZE, "engine": "tensorflow", "precision": "float32"}


@dataclass(frozen=True)
class CheapEngine(Engine):
    """From pixels to features, in a given time per unit; removes a folder at its second call if it has one to remove."""

    name = "tensorflow"
    files = ()
    distributions = ("tensorflow", "tensorflow-cpu")

    precision: str = "float32"
    n_gpus: int = 8  # as many processes
    seconds: float = 0.0
    remove: str = ""
    die: bool = False
    batch: int = UNIT_IMAGES
    unit_images = UNIT_IMAGES
    threads = 1
    decoders = 0
    layer_precision = "float32"
    repeat: int = 1  # how often each feature stands in an embedding

    @classmethod
    def find_native_precision(cls) -> str:
        return "float32"

    def infer(self, images: np.ndarray, files: FrontFiles) -> np.ndarray:
        if self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        if self.remove and os.path.exists(self.remove + ".called"):
            shutil.rmtree(self.remove, ignore_errors=True)
        elif self.remove:
            Path(self.remove + ".called").touch()
        return np.tile(images[:, :2].reshape(len(images), -1).astype(np.float32) / 255, (1, self.repeat))


def install(patch: Any, engine: CheapEngine | None = None, weights: str = "0" * 64) -> None:
    """Put the cheap network in the place of the real one; `patch` sets an attribute."""
    engine = engine or CheapEngine()
    cut = Cut(weights, "relu", "densenet", shape=(2 * SIZE * 3 * engine.repeat,), n_weights=0)
    network = Network(cut, engine, FrontFiles(Path("nowhere"), "cheap"))

    @contextmanager
    def prepare(request: Any, engine: Any, store: Path, check: Callable[[Cut], None]) -> Iterator[Network]:
        check(cut)
        yield network

    patch(features, "choose_engine", lambda *args: Choice(network.engine, "cheap"))
    patch(features, "preparing_network", prepare)


def _die_at(call: str, number: int, when: str) -> None:
    """Kill this process at the given call of a function of `os`, before or after it is done."""
    real, count = getattr(os, call), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if count[0] == number and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, call, counted)


def main() -> int:
    """Make a store with the options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--remove", default="")
    parser.add_argument("--die-at", nargs=3, metavar=("CALL", "NUMBER", "WHEN"))
    parser.add_argument("--largest-file", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scheduler")
    parser.set_defaults(command=_run, kept=KEPT)
    return run_command("featurize", parser)


def _run(args: argparse.Namespace) -> None:
    n_gpus = 0 if args.scheduler else CheapEngine.n_gpus  # the workers of a cluster have none
    install(setattr, CheapEngine(seconds=args.seconds, remove=args.remove, n_gpus=n_gpus))
    if args.die_at:
        _die_at(args.die_at[0], int(args.die_at[1]), args.die_at[2])
    if args.largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.largest_file, args.largest_file))
    make_features(args.data, args.store, **GIVEN, workers=args.workers, scheduler=args.scheduler)


if __name__ == "__main__":
    sys.exit(main())
