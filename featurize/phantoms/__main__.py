"""``python -m featurize.phantoms``: draw a small data set in the official layout."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m featurize.phantoms",
        description="Draw radiology-like phantoms with labels, in the official layout. A seed draws the same files.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--images", type=int, default=2000, help="how many, at least 20 (2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the dice (0)")
    args = parser.parse_args(argv)

    from cache.support.command import run_command
    from featurize.phantoms.dataset import MIN_IMAGES, make_phantoms

    if args.images < MIN_IMAGES:
        parser.error(f"--images: expected at least {MIN_IMAGES}")
    if args.seed < 0:
        parser.error("--seed: expected 0 or more")
    return run_command("phantoms", lambda: make_phantoms(args.out, args.images, args.seed))


if __name__ == "__main__":
    sys.exit(main())
