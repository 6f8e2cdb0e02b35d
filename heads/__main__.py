"""``python -m heads``: train heads on a store, compare and join them, predict and export."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from cache.support.command import NOTHING_KEPT, print_json, run_command
from cache.support.errors import ParameterError
from cache.support.reporting import logger
from eval.editions import EDITIONS, LATEST
from heads.registry import CALIBRATIONS, DECODERS, DEFAULT_DECODER, HEADS
from heads.settings import parse_grid, parse_settings


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("heads", make_parser(), argv)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line. The name of the command is in ``action``."""
    parser = argparse.ArgumentParser(prog="python -m heads", description="Train heads on a feature store, and predict.")
    commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="train a head, score it on valid, save it as a run")
    _add_options(fit)
    fit.set_defaults(command=_fit, kept=_describe_kept)
    sweep = commands.add_parser("sweep", help="train a head with every combination of parameters, save the best run")
    _add_options(sweep)
    _add_grid(sweep, required=True)
    _add_scheduler(sweep)
    sweep.set_defaults(command=_sweep, kept="finished trials are kept, and the same command does the others")
    choose = commands.add_parser(
        "choose", help="score every head with every decoder in one table; folds of train choose"
    )
    choose.add_argument("--store", type=Path, required=True, help="feature store")
    choose.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    choose.add_argument("--heads", nargs="+", metavar="NAME", help="the heads (all)")
    _add_decoders(choose)
    choose.add_argument("--pooling", default="", metavar="NAME", help="parts of the store's features (all)")
    choose.add_argument("--json", action="store_true", help="print the table as JSON")
    _add_scheduler(choose)
    choose.set_defaults(command=_choose)
    best = commands.add_parser("best", help="search heads, parameters, features and ensembles within a time budget")
    best.add_argument("--store", type=Path, required=True, help="feature store, best one that is joined of several")
    best.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    best.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    best.add_argument(
        "--budget", default="30m", metavar="TIME", help="the time that all may take, as 90s, 30m, 2h (30m)"
    )
    best.add_argument("--train", default="train", metavar="SPLITS", help="train or train+valid: what the saved heads "
                      "learn from, after everything else was chosen on train (train)")  # fmt: skip
    _add_scheduler(best)
    best.add_argument("--json", action="store_true", help="print what was tried as JSON")
    best.set_defaults(command=_best, kept="finished trials are kept, and the same command does the others")
    ensemble = commands.add_parser("ensemble", help="join runs, of one store or several, into one run")
    ensemble.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of the runs")
    ensemble.add_argument("--how", default="mean", help="mean, weighted or stack of scores; union, intersection or "
                          "vote of sets (mean)")  # fmt: skip
    ensemble.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the ensemble")
    _add_decoding(ensemble)
    ensemble.set_defaults(command=_ensemble)
    predict = commands.add_parser("predict", help="write the submission of a run, checked by the edition's rules")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    predict.add_argument("--store", type=Path, help="feature store; an ensemble remembers its stores")
    predict.add_argument("--data", type=Path, help="data folder; its list of ids decides rows and order")
    predict.add_argument("--split", default="test", help="train, valid or test (test)")
    predict.add_argument("--edition", type=int, default=LATEST, metavar="YEAR",
                         help=f"{min(EDITIONS)} to {max(EDITIONS)} ({LATEST})")  # fmt: skip
    predict.set_defaults(command=_predict)
    check = commands.add_parser(
        "check",
        help="check a request before there is a store: names, values, labels, ids, folders",
        description="Check in seconds what fit will be asked for; with --grid, sweep; with --edition, predict, too; "
        "with --budget, best; without --out, choose. The store need not exist. Nothing is written or, if all is well, "
        "printed.",
    )
    _add_options(check, for_check=True)
    _add_grid(check)
    _add_decoders(check)
    check.add_argument("--edition", type=int, metavar="YEAR", help="year of the submission, if one is made")
    check.add_argument("--budget", metavar="TIME", help="check what best will be asked for, instead of fit")
    check.set_defaults(command=_check)
    table = commands.add_parser("table", help="print the published scores of recipes beside those of their runs")
    table.add_argument("recipes", type=Path, metavar="RECIPES", help="folder of the recipes (*.mk)")
    table.add_argument("runs", type=Path, metavar="RUNS", help="folder of their runs, each named as its recipe")
    table.set_defaults(command=_table)
    runs = commands.add_parser("runs", help="list finished runs with their scores, the best first")
    runs.add_argument("folders", type=Path, nargs="*", default=[Path("runs")], metavar="FOLDER",
                      help="folders of runs, or folders with such folders in them (runs)")  # fmt: skip
    runs.add_argument("--json", action="store_true", help="print the table as JSON")
    runs.set_defaults(command=_runs)
    export = commands.add_parser("export", help="write a run as one Keras model, from images to scores")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument("--store", type=Path, help="feature store with its network (the one the run was trained on)")
    export.add_argument("--out", type=Path, metavar="FILE", help="the file to write (RUN/model.keras)")
    export.set_defaults(command=_export)
    return parser


def _add_options(parser: argparse.ArgumentParser, for_check: bool = False) -> None:
    """Add the options of `fit` and `sweep`; for `check`, some may be left out, as for `choose`."""
    known = ", ".join(HEADS)
    if for_check:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"the head, or several as for choose: {known}")
    else:
        parser.add_argument("name", metavar="NAME", help=f"the head: {known}")
    parser.add_argument("--store", type=Path, required=True, help="feature store")
    parser.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    parser.add_argument("--out", type=Path, required=not for_check, metavar="RUN", help="folder of the run")
    parser.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE",
                        help="parameters of the head (those of an earlier run in RUN, or its defaults)")  # fmt: skip
    _add_decoding(parser)
    parser.add_argument("--pooling", metavar="NAME", help="parts of the store's features (all)")
    parser.add_argument("--concepts", nargs="+", action="extend", metavar="CUI", help="learn only these (all)")
    parser.add_argument("--train", metavar="SPLITS", help="train or train+valid: what the saved head learns from, "
                        "after everything else was chosen on train (train)")  # fmt: skip


def _add_grid(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the options of a sweep."""
    parser.add_argument("--grid", nargs="+", action="extend", required=required, metavar="KEY=VALUE,VALUE",
                        help="the values of each parameter, such as C=0.001,0.01,0.1")  # fmt: skip
    parser.add_argument("--by", default="valid", metavar="WHAT",
                        help="valid or folds: what decides, F1 on valid or on folds of train (valid)")  # fmt: skip


def _add_scheduler(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scheduler", metavar="ADDRESS", help="fit on a cluster of Dask: tcp://host:port of its "
                        "scheduler, or local (none: this machine)")  # fmt: skip


def _add_decoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--decoders", nargs="+", metavar="DECODER", help="the decoders, written as for fit (all)")


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    """Add the options for how scores become sets of concepts."""
    parser.add_argument("--decoder", metavar="[CALIBRATION+]NAME[:VALUE][,empty]",
                        help=f"{', '.join(DECODERS)}; fixed takes a threshold and top-k a number; "
                        f"{' or '.join(CALIBRATIONS)} turns scores into probabilities; empty allows an image without "
                        f"a concept (that of an earlier run in RUN, or {DEFAULT_DECODER})")  # fmt: skip
    parser.add_argument("--tune", metavar="WHAT", help="folds or valid: tune the decoder on out-of-fold scores of "
                        "train, or on valid (folds)")  # fmt: skip
    parser.add_argument("--nested", action="store_true", default=None, help="estimate by nested cross-validation, too, "
                        "what head and decoder reach on images that neither has seen")  # fmt: skip


def _fit(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.runs.builder import fit_run

    # Heads leave the number of processes to joblib, as scikit-learn does. Commands use all cores.
    with parallel_config(n_jobs=-1):
        fit_run(args.name, args.store, args.data, args.out, **_run_options(args))


def _describe_kept(args: argparse.Namespace) -> str:
    """What an interrupted `fit` has kept."""
    if any(args.out.with_name(f"{args.out.name}.training").glob("*.h5")):
        return "the same command continues after the last finished epoch"
    earlier = f"; {args.out} still has the earlier run" if (args.out / "digests.json").exists() else ""
    return f"nothing of it is kept, and {NOTHING_KEPT}{earlier}"


def _sweep(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.selection.sweep import sweep_runs

    grid, options = parse_grid(args.grid), _run_options(args)
    with parallel_config(n_jobs=-1):
        sweep_runs(args.name, args.store, args.data, args.out, grid, by=args.by, scheduler=args.scheduler, **options)


def _choose(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.selection.leaderboard import choose

    if args.json:
        logger.setLevel(logging.WARNING)  # nothing but the JSON is printed
    with parallel_config(n_jobs=-1):
        options = {key: getattr(args, key) for key in ("heads", "decoders", "pooling", "scheduler")}
        table = choose(args.store, args.data, **options)
    if args.json:
        print_json({"table": table})


def _best(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.selection.best import find_best

    if args.json:
        logger.setLevel(logging.WARNING)  # nothing but the JSON is printed
    with parallel_config(n_jobs=-1):
        options = {key: getattr(args, key) for key in ("budget", "train", "scheduler")}
        found = find_best(args.store, args.data, args.out, **options)
    if args.json:
        print_json(found)


def _check(args: argparse.Namespace) -> None:
    from heads.selection.check import check_best, check_choose, check_fit

    if args.budget and args.out:
        train, edition = args.train or "train", args.edition
        check_best(args.store, args.data, args.out, budget=args.budget, train=train, edition=edition)
        return
    if args.out is None:
        check_choose(args.store, args.data, heads=args.names, decoders=args.decoders, pooling=args.pooling)
        return
    if len(args.names) != 1:
        raise ParameterError(f"{len(args.names)} heads with --out, expected one; choose among several without --out")
    grid, options = parse_grid(args.grid) if args.grid else None, _run_options(args)
    check_fit(args.names[0], args.store, args.data, args.out, grid=grid, by=args.by, edition=args.edition, **options)


def _run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `fit_run`; None where the user gives no value."""
    options = {key: getattr(args, key) for key in ("concepts", "decoder", "pooling", "train", "tune", "nested")}
    return options | {"params": None if args.set is None else parse_settings(args.set)}


def _ensemble(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.ensembles.builder import make_ensemble

    with parallel_config(n_jobs=-1):
        make_ensemble(args.runs, args.out, args.how, decoder=args.decoder, tune=args.tune, nested=args.nested)


def _predict(args: argparse.Namespace) -> None:
    from heads.ensembles.prediction import predict_run

    predict_run(args.run, args.store, args.data, split=args.split, edition=args.edition)


def _table(args: argparse.Namespace) -> None:
    from heads.selection.recipe_table import report_recipes

    report_recipes(args.recipes, args.runs)


def _runs(args: argparse.Namespace) -> None:
    from heads.selection.run_table import report_runs

    if args.json:
        logger.setLevel(logging.WARNING)  # nothing but the JSON is printed
    table = report_runs(args.folders)
    if args.json:
        print_json({"runs": table})


def _export(args: argparse.Namespace) -> None:
    from heads.runs.keras_model import export_run

    export_run(args.run, args.store, args.out)


if __name__ == "__main__":
    sys.exit(main())
