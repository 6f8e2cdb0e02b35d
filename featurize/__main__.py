"""``python -m featurize``: embed every image of a data folder into a feature store."""

import argparse
import sys
from pathlib import Path

from cache.support.command import run_command
from featurize.engines.registry import ENGINES

OPTIONS = ("backbone", "weights", "size", "layer", "pooling", "engine", "precision", "dtype", "workers",
           "scheduler", "rebuild")  # fmt: skip
"""The options that `featurize.make_features` takes under the same names."""


KEPT = "the same command continues from what is finished"
"""What is said where the command is interrupted."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m featurize",
        description="Embed every image of DATA (<split>/<ID>.jpg) with a frozen network, once, into a feature store. "
        "Options that are left out follow the store if there is one. Run the command again after a stop, or with new "
        "images: it embeds only what is missing.",
        epilog="Only --weights imagenet uses the internet, the first time: Keras downloads the file and checks its "
        "hash.",
    )
    parser.add_argument("data", metavar="DATA", help="folder with train/, valid/ and test/, or its URL (s3://...)")
    parser.add_argument("--store", type=Path, required=True, help="HDF5 file to make or to bring up to date")
    parser.add_argument("--backbone", help="a Keras application, in any case (densenet121)")
    parser.add_argument("--weights", help="imagenet, random:SEED, or a .h5, .weights.h5 or .keras file (imagenet)")
    parser.add_argument("--size", type=_positive, help="side of the image that the network sees, in pixels (224)")
    parser.add_argument(
        "--layer",
        help="name or index of the layer to cut after, or earlier or last; several with commas between them (last)",
    )
    parser.add_argument("--pooling", help="avg, max or gem; avg,gem stores both; none stores maps (avg)")
    parser.add_argument("--engine", help=f"what runs the network: auto, {' or '.join(ENGINES)} (auto)")
    parser.add_argument("--precision", help="auto, float32, bfloat16 or float16 (auto)")
    parser.add_argument("--dtype", help="how numbers are stored: float32 or float16 (float32; float16 for maps)")
    parser.add_argument("--workers", type=_positive, help="number of processes (one per core, or one per GPU)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="embed on a cluster of Dask: tcp://host:port of its "
                        "scheduler, or local (none: processes of this machine)")  # fmt: skip
    parser.add_argument("--rebuild", action="store_true", help="replace a store that holds other features, and build "
                        "a network that is missing beside it")  # fmt: skip
    parser.set_defaults(command=_featurize, kept=KEPT)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("featurize", _parser(), argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number above 0")
    return int(text)


def _featurize(args: argparse.Namespace) -> None:
    from featurize.pipeline import make_features

    make_features(args.data, args.store, **{name: getattr(args, name) for name in OPTIONS})


if __name__ == "__main__":
    sys.exit(main())
