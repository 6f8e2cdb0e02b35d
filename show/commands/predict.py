"""Predict the concepts of any images with a finished run or ensemble."""

import argparse
from contextlib import ExitStack
from pathlib import Path

MAX_PRINTED = 10
"""How many images are printed where a file has all."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run or ensemble")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="files, and folders of images")
    parser.add_argument("--out", type=Path, metavar="CSV", help="also write every concept of every image to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--top", type=int, metavar="N", help="concepts per image besides those that are predicted "
                        "(5 are printed; JSON and CSV have all)")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="processes (the engine decides)")


def run(args: argparse.Namespace) -> None:
    """Predict, and print or write each image as it comes."""
    import json
    import logging

    from cache.images import find_files
    from cache.support.command import print_line
    from cache.support.errors import ParameterError
    from cache.support.messages import count
    from cache.support.reporting import logger, report
    from show.prediction_table import N_OTHERS, format_json, format_lines, writing_csv
    from show.predictor import ImagePredictor

    for name in ("top", "workers"):
        least = 0 if name == "top" else 1
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ParameterError(f"--{name} {getattr(args, name)}, expected {least} or more")
    if args.json:
        logger.setLevel(logging.WARNING)  # nothing but the JSON is printed
    paths = find_files(args.images)
    n_unreadable = 0
    with ExitStack() as stack:
        write = stack.enter_context(writing_csv(args.out, args.top)) if args.out else None
        predictor = ImagePredictor(args.run)
        n_printed = min(len(paths), MAX_PRINTED) if args.out else len(paths)
        if args.json:
            print_line(f'{{"run": {json.dumps(str(args.run))}, "images": [')
        for number, prediction in enumerate(predictor.predict_files(paths, args.workers), 1):
            n_unreadable += not prediction.is_readable
            if write:
                write(prediction)
            if args.json:
                print_line(format_json(prediction, args.top) + ("," if number < len(paths) else ""))
            elif number <= n_printed:
                for line in format_lines(prediction, N_OTHERS if args.top is None else args.top):
                    print_line(line)
        if args.json:
            print_line("]}")
    unreadable = f", {n_unreadable:,} of them cannot be read" if n_unreadable else ""
    rest = f"{len(paths) - n_printed:,} more images; " if n_printed < len(paths) else ""
    report(f"{rest}+ marks what is predicted ({count(len(paths), 'image')}{unreadable})")
    if args.out:
        report(f"{args.out}: {count(len(paths), 'image')}, one row per concept")
