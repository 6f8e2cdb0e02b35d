"""``python -m cache``: look into a feature store."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cache", description="Look into a feature store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="rows a split, unreadable images and why, provenance")
    status.add_argument("store", type=Path, metavar="STORE", help="the HDF5 file that `make features` made")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)

    from cache.command import run_command

    return run_command("cache", lambda: _status(args.store, args.json))


def _status(path: Path, as_json: bool) -> None:
    from cache.store import FeatureStore

    store = FeatureStore(path)
    splits: dict[str, Any] = {
        name: {"rows": len(split.ids), "features": split.embeddings.shape[1], "unreadable": split.unreadable()}
        for name, split in store.splits.items()
    }
    facts = json.loads(store.provenance.to_json())
    if as_json:
        print(json.dumps({"store": str(path), "fingerprint": store.fingerprint, "content": store.content,
                          "provenance": facts, "record": store.record, "splits": splits}, indent=1))  # fmt: skip
        return
    print(f"{path}: complete, fingerprint {store.fingerprint[:16]}")
    for name, split in splits.items():
        print(f"  {name:<6} {split['rows']:>8,} rows of {split['features']:,}, {len(split['unreadable']):,} unreadable")
        for line in split["unreadable"][:10]:
            print(f"           {line}")
    for name, value in {**facts, **store.record}.items():
        print(f"  {name:<14} {value}")


if __name__ == "__main__":
    sys.exit(main())
