"""``python -m featurize``: embed every image of a data folder into a feature store."""

import argparse
import sys
from pathlib import Path

from cache.support.command import run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m featurize",
        description="Embed every image of DATA (<split>/<ID>.jpg) with a frozen network, once, into a feature store. "
        "Options left out follow the store if there is one. Run again after a stop or with new images: only "
        "what is missing is embedded.",
        epilog="The network is used by --weights imagenet alone, on its first use: Keras then downloads the file and "
        "checks its hash.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with train/, valid/ and test/")
    parser.add_argument("--store", type=Path, required=True, help="HDF5 file to make or bring up to date")
    parser.add_argument("--backbone", help="a Keras application in any case (densenet121)")
    parser.add_argument("--weights", help="imagenet, random:SEED, or a .h5, .weights.h5 or .keras file (imagenet)")
    parser.add_argument("--size", type=_positive, help="side of the image that the network sees, in pixels (224)")
    parser.add_argument("--layer", help="name or index of the layer to cut after (the last)")
    parser.add_argument("--pooling", help="avg, max or gem; avg,gem stores both; none stores maps (avg)")
    parser.add_argument("--engine", help="auto, openvino or tensorflow (auto)")
    parser.add_argument("--precision", help="auto, float32, bfloat16 or float16 (auto)")
    parser.add_argument("--dtype", help="how embeddings are stored: float32, or float16 as maps are")
    parser.add_argument("--workers", type=_positive, help="processes (one a core)")
    parser.add_argument("--rebuild", action="store_true", help="replace a store that holds other features; "
                        "build the network beside it if that is gone")  # fmt: skip
    parser.set_defaults(command=_featurize)
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
    from featurize.request import DEFAULTS

    given = {name: getattr(args, name) for name in DEFAULTS if getattr(args, name) is not None}
    make_features(args.data, args.store, given, workers=args.workers, rebuild=args.rebuild)


if __name__ == "__main__":
    sys.exit(main())
