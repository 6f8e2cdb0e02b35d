"""``python -m eval``: score and check submissions as the organisers do."""

import argparse
import json
import os
import sys
from pathlib import Path

from eval.editions import EDITIONS, LATEST, find_edition
from eval.errors import UserError

MANY_FAULTS = 20
"""How many faults are printed; a file with more is wrong in one way."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        status = int(args.command(args))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our output went away (`| head`); what remains has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("eval: interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"eval: error: {said}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval", description="Score and check submissions as the organisers do."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser("score", help="official scores of a submission")
    score.add_argument(
        "submission", type=Path, metavar="SUBMISSION", help="a .csv, or a .zip with submission.csv in it"
    )
    score.add_argument("--truth", type=Path, required=True, metavar="CSV", help="the true concepts")
    score.add_argument("--manual", type=Path, metavar="CSV", help="the manual truth, for the secondary score")
    score.set_defaults(command=_score)
    check = commands.add_parser("check", help="whether an edition would accept a submission")
    check.add_argument(
        "submission", type=Path, metavar="SUBMISSION", help="a .csv, or a .zip with submission.csv in it"
    )
    check.add_argument("--ids", type=Path, required=True, metavar="CSV", help="the official list of ids, in its order")
    check.set_defaults(command=_check)
    for command in (score, check):
        command.add_argument("--edition", type=int, default=LATEST, choices=list(EDITIONS), help=f"year ({LATEST})")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _score(args: argparse.Namespace) -> int:
    from eval.scoring import score_files

    scores, form = score_files(args.submission, args.truth, args.manual, find_edition(args.edition))
    if form:
        print(f"eval: warning: the form check of {args.edition} would refuse it: {form[0]}", file=sys.stderr)
    if args.json:
        print(json.dumps({"edition": args.edition, "n_images": scores.n_images, "primary": scores.primary,
                          "secondary": scores.secondary, "form": [str(fault) for fault in form]}))  # fmt: skip
        return 0
    print(f"primary F1    {scores.primary:.4f}   ({scores.n_images:,} images, rules of {args.edition})")
    print(f"secondary F1  {scores.secondary:.4f}" if scores.secondary is not None else "secondary F1  needs --manual")
    return 0


def _check(args: argparse.Namespace) -> int:
    from eval.labels import read_ids
    from eval.submission import find_faults, read_bytes

    ids = read_ids(args.ids)
    faults = list(find_faults(read_bytes(args.submission), ids, find_edition(args.edition), args.submission.name))
    if args.json:
        print(json.dumps({"edition": args.edition, "n_images": len(ids), "faults": [vars(fault) for fault in faults]}))
    elif not faults:
        print(f"{args.submission}: {len(ids):,} images, passes the check of {args.edition}")
    for fault in faults[:MANY_FAULTS]:
        print(f"{args.submission}: {fault}", file=sys.stderr)
    if faults:
        rest = f" (and {len(faults) - MANY_FAULTS:,} more)" if len(faults) > MANY_FAULTS else ""
        print(
            f"eval: error: {args.submission}: {len(faults):,} faults{rest}, refused in {args.edition}", file=sys.stderr
        )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
