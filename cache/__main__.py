"""``python -m cache``: look into a feature store."""

import argparse
import contextlib
import sys
from pathlib import Path

from cache.support.command import print_json, print_line, run_command
from cache.support.messages import count, describe_shape

MAX_PRINTED = 10
"""How many images of a kind are printed; ``--json`` has all."""

MAX_DEFECTS = 100
"""How many damaged places are printed; ``--json`` has all."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("cache", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cache", description="Look into a feature store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="what it contains, and what `make features` would do now")
    status.add_argument("--data", help="data folder to compare it with, or its URL")
    status.set_defaults(command=_status)
    verify = commands.add_parser("verify", help="check every byte against its digest")
    verify.set_defaults(command=_verify)
    purpose = "identical and nearly identical images, leaks between splits first"
    cost = "All pairs are compared, so the time grows with the square of the number of images."
    duplicates = commands.add_parser(
        "duplicates",
        help=purpose,
        description=f"List {purpose}. {cost}",
    )
    duplicates.add_argument(
        "--cosine", type=float, default=0.995, help="smallest cosine of nearly identical images (0.995)"
    )
    duplicates.set_defaults(command=_duplicates)
    join = commands.add_parser("join", help="join stores of the same images: their features stand side by side")
    join.add_argument("out", type=Path, metavar="STORE", help="the joined store")
    join.add_argument("stores", type=Path, nargs="+", metavar="MEMBER", help="the stores to join, at least two")
    join.set_defaults(command=_join)
    for command in (status, verify, duplicates):
        command.add_argument("store", type=Path, metavar="STORE", help="the HDF5 file that `make features` made")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _status(args: argparse.Namespace) -> None:
    from cache.status import describe_store

    described = describe_store(args.store, args.data)
    if args.json:
        print_json(described)
        return
    state = f"complete, fingerprint {described['fingerprint'][:16]}" if described["complete"] else "not complete"
    print_line(f"{args.store}: {state}")
    for name, split in described.get("splits", {}).items():
        shape = describe_shape((*split.get("map", ()), split["features"]))
        print_line(f"  {name:<6} {split['rows']:>8,} rows of {shape}, {len(split['unreadable']):,} unreadable")
        _print_some(split["unreadable"])
    for kind, ids in (described["changes"] or {}).items():
        if isinstance(ids, list) and ids:
            print_line(f"  {kind:<10} {len(ids):>8,}")
            _print_some(ids)
    for name, value in {**described.get("provenance", {}), **described.get("record", {})}.items():
        print_line(f"  {name:<14} {value}")
    for each in described["unfinished"]:
        if each["fingerprint"] != described.get("fingerprint"):
            folder = f"{args.store}.parts/{each['fingerprint'][:16]}"
            kind = " with other features" if described["complete"] else ""
            print_line(f"  unfinished     {count(each['images'], 'image')}{kind}, in {folder}")
    print_line(described["next"])


def _verify(args: argparse.Namespace) -> None:
    from cache.support.errors import StoreError
    from cache.verify import verify_store

    defects = verify_store(args.store)
    if args.json:
        print_json({"store": str(args.store), "damage": [vars(each) for each in defects]})
    elif not defects:
        print_line(f"{args.store}: {args.store.stat().st_size:,} bytes, all as they were written")
    else:
        _print_some([f"bytes {each.start:,} to {each.end:,}: {each.where}" for each in defects], MAX_DEFECTS)
    if defects:
        raise StoreError(
            f"{args.store}: damaged in {count(len(defects), 'place')}; "
            "move it away and run `make features` again, or copy it again"
        )


def _duplicates(args: argparse.Namespace) -> None:
    from cache.duplicates import find_duplicates
    from cache.store import FeatureStore
    from cache.support.progress import Progress

    store = FeatureStore(args.store)
    n_images = sum(len(split.ids) for split in store.splits.values())
    with contextlib.closing(Progress(n_images, "comparing")) as progress:
        found = find_duplicates(store, args.cosine, progress.reach)
    if args.json:
        print_json({"store": str(args.store), "cosine": args.cosine, "n_near": found.n_near,
                     "n_near_leaks": found.n_near_leaks, "identical": [vars(each) for each in found.identical],
                     "near": [vars(each) for each in found.near], "withheld": found.withheld})  # fmt: skip
        return
    leaks = sum(each.leak for each in found.identical)
    print_line(f"{count(len(found.identical), 'group')} of identical images, {leaks:,} of them in two splits")
    _print_some([f"{'LEAK ' if each.leak else ''}{' = '.join(each.images)}" for each in found.identical])
    if found.withheld:
        print_line(found.withheld)
        return
    near = count(found.n_near, "pair")
    print_line(f"{near} with a cosine of {args.cosine:g} or more, {found.n_near_leaks:,} of them between splits")
    lines = [f"{'LEAK ' if each.leak else ''}{each.cosine:.4f} {' ~ '.join(each.images)}" for each in found.near]
    _print_some(lines, MAX_PRINTED, found.n_near)


def _join(args: argparse.Namespace) -> None:
    from cache.join import join_stores

    join_stores(args.stores, args.out)


def _print_some(lines: list[str], limit: int = MAX_PRINTED, n_lines: int | None = None) -> None:
    for line in lines[:limit]:
        print_line(f"           {line}")
    rest = (len(lines) if n_lines is None else n_lines) - limit
    if rest > 0:
        print_line(f"           and {rest:,} more (--json lists {len(lines):,})")


if __name__ == "__main__":
    sys.exit(main())
