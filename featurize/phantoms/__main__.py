"""``python -m featurize.phantoms``: draw a small data set in the official layout."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from cache.support.command import run_command


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("phantoms", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m featurize.phantoms",
        description="Draw radiology-like phantoms and their labels, in the official layout. "
        "The same seed gives the same files.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--images", type=_at_least(20), default=2000, help="number of images, at least 20 (2000)")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="seed of the random generator (0)")
    parser.set_defaults(command=_draw, kept="the same command continues from the pictures that are drawn")
    return parser


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least {minimum}")
        return int(text)

    return parse


def _draw(args: argparse.Namespace) -> None:
    from featurize.phantoms.dataset import make_phantoms

    make_phantoms(args.out, args.images, args.seed)


if __name__ == "__main__":
    sys.exit(main())
