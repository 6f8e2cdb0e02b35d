"""Write the report of a run: one HTML file with its scores, concepts, images and provenance, for any browser."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run; the report is report.html in it")
    parser.add_argument("--against", type=Path, nargs="+", action="extend", default=[], metavar="RUN",
                        help="other runs on the same data, to compare it with")  # fmt: skip
    parser.add_argument("--heat-maps", type=int, default=0, metavar="N",
                        help="images of the gallery that get heat maps, which need the network (0)")  # fmt: skip
    parser.add_argument("--store", type=Path, help="feature store, if it was moved; an ensemble remembers its stores")
    parser.add_argument("--data", type=Path, help="data folder, if it was moved")


def run(args: argparse.Namespace) -> None:
    """Write the report."""
    from cache.support.errors import NotInstalledError

    try:
        from show.report.page import make_report
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "matplotlib"):
            raise
        raise NotInstalledError(f"{error.name} is not installed: pip install jinja2 matplotlib") from error
    make_report(args.run, args.against, store=args.store, data=args.data, heat_maps=args.heat_maps)
