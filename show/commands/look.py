"""Look at a data folder before it is embedded: counts, sizes, unreadable images, duplicates, faults of labels."""

import argparse
import logging
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="data folder with train/, valid/, test/ and label files"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Print the overview of a data folder.

    Raises
    ------
    DataError
        `make features` or `make head` would refuse the folder; everything that was found is printed before.
    """
    from cache.support.command import print_json, print_line
    from cache.support.errors import DataError
    from cache.support.messages import count
    from cache.support.reporting import logger
    from show.data_overview import look_at_data

    if args.json:
        logger.setLevel(logging.WARNING)  # nothing but the JSON is printed
    overview = look_at_data(args.data)
    if args.json:
        print_json(overview.to_json())
    else:
        for line in overview.describe():
            print_line(line)
    if overview.faults:
        raise DataError(f"{args.data}: {count(len(overview.faults), 'fault')} to mend first: {overview.faults[0]}")
