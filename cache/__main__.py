"""``python -m cache``: look into a feature store."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cache.support.command import run_command

SHOWN = 10
"""How many of a kind are printed for people; ``--json`` has all."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("cache", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cache", description="Look into a feature store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="what it holds, and what a run would do now")
    status.add_argument("--data", type=Path, help="data folder to compare it with")
    status.set_defaults(command=_status)
    verify = commands.add_parser("verify", help="check every byte against its digest")
    verify.set_defaults(command=_verify)
    duplicates = commands.add_parser("duplicates", help="identical and near-identical images, leaks first")
    duplicates.add_argument("--cosine", type=float, default=0.995, help="least cosine of near-identical ones (0.995)")
    duplicates.set_defaults(command=_duplicates)
    for command in (status, verify, duplicates):
        command.add_argument("store", type=Path, metavar="STORE", help="the HDF5 file that `make features` made")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _status(args: argparse.Namespace) -> None:
    from cache.status import describe_store

    told = describe_store(args.store, args.data)
    if args.json:
        _print_json(told)
        return
    state = f"complete, fingerprint {told['fingerprint'][:16]}" if told["complete"] else "not complete"
    print(f"{args.store}: {state}")
    for name, split in told.get("splits", {}).items():
        shape = " x ".join(f"{side:,}" for side in (*split.get("map", ()), split["features"]))
        print(f"  {name:<6} {split['rows']:>8,} rows of {shape}, {len(split['unreadable']):,} unreadable")
        _print_some(split["unreadable"])
    for kind, ids in (told["changes"] or {}).items():
        if isinstance(ids, list) and ids:
            print(f"  {kind:<10} {len(ids):>8,}")
            _print_some(ids)
    for name, value in {**told.get("provenance", {}), **told.get("record", {})}.items():
        print(f"  {name:<14} {value}")
    for each in told["unfinished"]:
        if each["fingerprint"] != told.get("fingerprint"):
            place = f"{args.store}.parts/{each['fingerprint'][:16]}"
            print(f"  unfinished     {each['images']:,} images of other features, in {place}")
    print(told["next"])


def _verify(args: argparse.Namespace) -> None:
    from cache.support.errors import UserError
    from cache.verify import verify_store

    findings = verify_store(args.store)
    if args.json:
        _print_json({"store": str(args.store), "damage": [vars(finding) for finding in findings]})
    elif not findings:
        print(f"{args.store}: {args.store.stat().st_size:,} bytes, every one as it was written")
    else:
        _print_some([f"bytes {each.start:,} to {each.end:,}: {each.where}" for each in findings], 100)
    if findings:
        raise UserError(
            f"{args.store}: damaged in {len(findings):,} places; "
            "move it away and run `make features` again, or copy it anew"
        )


def _duplicates(args: argparse.Namespace) -> None:
    from cache.duplicates import find_duplicates
    from cache.store import FeatureStore
    from cache.support.errors import UserError
    from cache.support.progress import Progress

    if not 0 < args.cosine <= 1:
        raise UserError(f"--cosine {args.cosine:g}: expected a number above 0, at most 1")
    store = FeatureStore(args.store)
    progress = Progress(sum(len(split.ids) for split in store.splits.values()), "comparing")
    found = find_duplicates(store, args.cosine, progress.reach)
    progress.close()
    if args.json:
        _print_json({"store": str(args.store), "cosine": args.cosine, "n_near": found.n_near,
                     "n_near_leaks": found.n_near_leaks, "identical": [vars(each) for each in found.identical],
                     "near": [vars(each) for each in found.near]})  # fmt: skip
        return
    leaks = sum(each.leak for each in found.identical)
    print(f"{len(found.identical):,} groups of identical images, {leaks:,} of them in two splits")
    _print_some([f"{'LEAK ' if each.leak else ''}{' = '.join(each.images)}" for each in found.identical])
    print(f"{found.n_near:,} pairs of cosine {args.cosine:g} or more, {found.n_near_leaks:,} of them between splits")
    if store.record["weights_source"].startswith("random:"):
        print("note: this network is random, not trained: it gives all images nearly one direction")
    lines = [f"{'LEAK ' if each.leak else ''}{each.cosine:.4f} {' ~ '.join(each.images)}" for each in found.near]
    _print_some(lines, SHOWN, found.n_near)


def _print_some(lines: list[str], limit: int = SHOWN, n_lines: int | None = None) -> None:
    for line in lines[:limit]:
        print(f"           {line}")
    rest = (len(lines) if n_lines is None else n_lines) - limit
    if rest > 0:
        print(f"           and {rest:,} more (--json has {len(lines):,} in all)")


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1))


if __name__ == "__main__":
    sys.exit(main())
