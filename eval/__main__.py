"""``python -m eval``: score, check and compare submissions as the organisers do."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.support.command import print_json, print_line, run_command
from cache.support.errors import DataError
from cache.support.messages import count, quote
from cache.support.reporting import warn
from eval.editions import EDITIONS, LATEST, find_edition

if TYPE_CHECKING:
    from eval.scored_file import ScoredFile

A_SUBMISSION = "a .csv, or a .zip with submission.csv in it"
A_RUN = f"a run's folder, or a submission: {A_SUBMISSION}"
NOTE = "95% bootstrap interval over images"
MAX_RESAMPLES = 1_000_000
"""It takes minutes at full size; more would not change a digit that is printed."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    return run_command("eval", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval", description="Score, check and compare submissions as the organisers do."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser("score", help="print a submission's official scores with their intervals")
    score.add_argument("submission", type=Path, metavar="RUN_OR_SUBMISSION", help=A_RUN)
    score.add_argument("--train", type=Path, metavar="CSV",
                       help="labels of the training images, to warn about true concepts that they lack "
                       "(default: the run's vocabulary)")  # fmt: skip
    score.add_argument("--breakdown", type=Path, metavar="CSV",
                       help="write precision, recall, F1 per group and concept, and images without a hit; names of "
                       "concepts are those of cui_mapping.csv beside the truth")  # fmt: skip
    score.set_defaults(command=_score)
    check = commands.add_parser("check", help="list every fault for which an edition would refuse a submission")
    check.add_argument("submission", type=Path, metavar="SUBMISSION", help=A_SUBMISSION)
    check.add_argument("--ids", type=Path, required=True, metavar="CSV", help="the official list of ids, in its order")
    check.set_defaults(command=_check)
    compare = commands.add_parser("compare", help="test whether two runs or submissions differ")
    for name in ("first", "second"):
        compare.add_argument(name, type=Path, metavar="RUN_OR_SUBMISSION", help=A_RUN)
    compare.set_defaults(command=_compare)
    for command in (score, compare):
        command.add_argument("--truth", type=Path, required=True, metavar="CSV", help="the true concepts")
        command.add_argument("--manual", type=Path, metavar="CSV", help="the manual truth, for the secondary score")
        command.add_argument("--resamples", type=_resamples, default=2000, metavar="N",
                             help="bootstrap resamples (default: 2000)")  # fmt: skip
    for command in (score, check, compare):
        command.add_argument(
            "--edition", type=int, default=LATEST, choices=list(EDITIONS), help=f"year of the rules (default: {LATEST})"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _score(args: argparse.Namespace) -> None:
    from eval.bootstrap import find_interval
    from eval.breakdown import break_down, write_breakdown
    from eval.concept_names import find_names
    from eval.run_folder import find_submission
    from eval.scored_file import score_files

    submission = find_submission(args.submission)
    scored = score_files(submission, args.truth, args.manual, args.edition)
    warnings = _warn(scored, submission, args.train)
    primary = find_interval(scored.primary_f1, args.resamples)
    secondary = None if scored.secondary_f1 is None else find_interval(scored.secondary_f1, args.resamples)
    tallies = break_down(scored.truth.sets, scored.predicted.sets)
    if args.breakdown:
        write_breakdown(args.breakdown, tallies, find_names(args.truth.parent))
    if args.json:
        result = {
            "edition": args.edition,
            "n_images": scored.n_images,
            "primary": scored.primary,
            "primary_interval": primary,
            "secondary": scored.secondary,
            "secondary_interval": secondary,
            "form": [str(fault) for fault in scored.form_faults],
            "warnings": warnings,
            "breakdown": _by_level([tally.to_row() for tally in tallies]),
        }
        print_json(result)
        return
    images = f"{count(scored.n_images, 'image')}, rules of {args.edition}"
    print_line(f"primary F1    {_with_interval(scored.primary, primary)}   ({images})")
    if scored.secondary is None or secondary is None:
        print_line("secondary F1  needs --manual")
    else:
        print_line(f"secondary F1  {_with_interval(scored.secondary, secondary)}")
    missed = sum(tally.level == "image" for tally in tallies)
    print_line(f"no hit        {count(missed, 'image')}   ([..] is the {NOTE}, {args.resamples:,} resamples)")


def _warn(scored: "ScoredFile", submission: Path, train: Path | None) -> list[str]:
    """Print warnings about rule traps and the form check to standard error, and return them."""
    from eval.traps import find_traps, find_vocabulary

    warnings = find_traps(scored, find_vocabulary(submission, train))
    faults = scored.form_faults
    if faults:
        rest = f" (and {len(faults) - 1:,} more, see `check`)" if len(faults) > 1 else ""
        warnings.append(f"the form check of {scored.edition.year} would refuse it: {faults[0]}{rest}")
    warnings = [*scored.oddities, *(f"{submission}: {line}" for line in warnings)]
    for line in warnings:
        warn(line)
    return warnings


def _by_level(tallies: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    levels: dict[str, list[dict[str, Any]]] = {"all": [], "group": [], "concept": [], "image": []}
    for row in tallies:
        levels[row["level"]].append({key: value for key, value in row.items() if key != "level"})
    return levels


def _check(args: argparse.Namespace) -> None:
    from eval.evaluator_files import FEW, is_skipped
    from eval.faults import NO_ROW, NOT_LISTED, find_faults
    from eval.files import is_zip
    from eval.labels import read_ids

    edition, ids, name = find_edition(args.edition), read_ids(args.ids), str(args.submission)
    faults = find_faults(args.submission, ids, edition)
    if args.json:
        print_json({"edition": args.edition, "n_images": len(ids), "faults": [vars(fault) for fault in faults]})
    elif faults:
        with contextlib.suppress(BrokenPipeError):  # `| head` must not hide the exit status
            for fault in faults:
                print_line(f"{name}: {fault}")
            sys.stdout.flush()
    else:
        needs_zip = edition.zipped and not is_zip(args.submission)
        hint = "; hand it in as a zip with the one file submission.csv" if needs_zip else ""
        print_line(f"{name}: {count(len(ids), 'image')}, passes the check of {edition.year}{hint}")
    skipped = [id for id in ids if is_skipped(id, edition)]
    if skipped:
        found = f"{count(len(skipped), 'id')} with the letters ID, such as {quote(skipped[0])}"
        warn(f"{args.ids}: {found}: the evaluator takes such rows for headers and skips them")
    if not faults:
        return
    missing = sum(fault.message.endswith(NO_ROW) for fault in faults)
    if missing >= (1 - FEW) * len(ids) and any(NOT_LISTED in fault.message for fault in faults):
        raise DataError(
            f"{name}: would be refused in {edition.year}: {missing:,} of {count(len(ids), 'listed id')} have no row, "
            f"such as {quote(ids[0])}; it seems to be of another split: give the list of that"
        )
    first = f"{faults[0]}" if len(faults) == 1 else f"{count(len(faults), 'fault')}, the first: {faults[0]}"
    raise DataError(f"{name}: would be refused in {edition.year}: {first}")


def _compare(args: argparse.Namespace) -> None:
    from eval.comparison import compare_files
    from eval.run_folder import find_submission
    from eval.scored_file import score_files

    paths = [find_submission(path) for path in (args.first, args.second)]
    pair = [score_files(path, args.truth, args.manual, args.edition) for path in paths]
    warnings = [line for scored, path in zip(pair, paths, strict=True) for line in _warn(scored, path, None)]
    comparisons = compare_files(pair[0], pair[1], args.resamples)
    first, second = str(args.first), str(args.second)
    if args.json:
        result = {"edition": args.edition, "runs": [first, second], "resamples": args.resamples}
        scores = {each.name.split()[0]: each.to_json(first, second) for each in comparisons}
        print_json(result | scores | {"warnings": warnings})
        return
    for each in comparisons:
        print_line(each.name)
        width = max(len(first), len(second), len("difference"))
        for name, score, interval in zip((first, second), each.scores, each.intervals, strict=True):
            print_line(f"  {name:{width}}  {_with_interval(score, interval)}")
        change = each.difference
        ends = f"[{change.low:+.4f}, {change.high:+.4f}]"
        print_line(f"  {'difference':{width}} {change.mean:+.4f}  {ends}   p = {change.p_value:.4f}")
        print_line(f"  {each.verdict(first, second)}")
    print_line(f"([..] is the {NOTE}, {args.resamples:,} resamples, paired for the difference)")


def _with_interval(score: float, interval: Sequence[float]) -> str:
    return f"{score:.4f}  [{interval[0]:.4f}, {interval[1]:.4f}]"


def _resamples(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= MAX_RESAMPLES:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number from 1 to {MAX_RESAMPLES:,}")
    return number


if __name__ == "__main__":
    sys.exit(main())
