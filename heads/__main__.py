"""``python -m heads``: train a head on a store, predict with a run."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from cache.support.command import run_command
from cache.support.reporting import logger
from eval.editions import EDITIONS, LATEST
from heads.registry import CALIBRATIONS, DECODERS, DEFAULT_DECODER, HEADS


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("heads", _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m heads", description="Train heads on a feature store, and predict.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="train a head, score it on valid, keep it as a run")
    _add_options(fit)
    fit.set_defaults(command=_fit)
    sweep = commands.add_parser("sweep", help="train a head with every combination of parameters, keep the best run")
    _add_options(sweep)
    sweep.add_argument("--grid", nargs="+", action="extend", required=True, metavar="KEY=VALUE,VALUE",
                       help="the values of each parameter, such as C=0.001,0.01,0.1")  # fmt: skip
    sweep.add_argument("--by", choices=("valid", "folds"), default="valid",
                       help="what decides: F1 on valid, or of out-of-fold scores of train (valid)")  # fmt: skip
    sweep.set_defaults(command=_sweep)
    choose = commands.add_parser(
        "choose", help="score every head with every decoder in one table; folds of train choose"
    )
    choose.add_argument("--store", type=Path, required=True, help="feature store")
    choose.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    choose.add_argument("--heads", nargs="+", metavar="NAME", help="the heads (all)")
    choose.add_argument("--decoders", nargs="+", metavar="DECODER", help="the decoders, as `fit` takes them (all)")
    choose.add_argument("--pooling", default="", metavar="NAME", help="one of the store's several poolings (all)")
    choose.add_argument("--json", action="store_true", help="print the table as JSON")
    choose.set_defaults(command=_choose)
    ensemble = commands.add_parser("ensemble", help="join runs, of one store or several, into one run")
    ensemble.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of the runs")
    ensemble.add_argument("--how", default="mean", help="mean, weighted or stack of scores; union, intersection or "
                          "vote of sets (mean)")  # fmt: skip
    ensemble.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the ensemble")
    _add_decoding(ensemble)
    ensemble.set_defaults(command=_ensemble)
    predict = commands.add_parser("predict", help="write a run's submission, checked by the edition's rules")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    predict.add_argument("--store", type=Path, help="feature store; an ensemble knows its own")
    predict.add_argument("--data", type=Path, help="data folder; its list of ids decides rows and order")
    predict.add_argument("--split", default="test", help="train, valid or test (test)")
    predict.add_argument("--edition", type=int, default=LATEST, choices=list(EDITIONS), help=f"year ({LATEST})")
    predict.set_defaults(command=_predict)
    table = commands.add_parser("table", help="print the published scores of recipes beside those of their runs")
    table.add_argument("recipes", type=Path, metavar="RECIPES", help="folder of the recipes (*.mk)")
    table.add_argument("runs", type=Path, metavar="RUNS", help="folder of their runs, each under its recipe's name")
    table.set_defaults(command=_table)
    export = commands.add_parser("export", help="write a run as one Keras model, image in, scores out")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument("--store", type=Path, help="feature store, whose network is taken (the one it was trained on)")
    export.add_argument("--out", type=Path, metavar="FILE", help="what to write (RUN/model.keras)")
    export.set_defaults(command=_export)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """What `fit` and `sweep` share."""
    parser.add_argument("name", metavar="NAME", help=f"the head: {', '.join(HEADS)}")
    parser.add_argument("--store", type=Path, required=True, help="feature store")
    parser.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE",
                        help="parameters of the head (those of the run that is there, or its defaults)")  # fmt: skip
    _add_decoding(parser)
    parser.add_argument("--pooling", metavar="NAME", help="one of the store's several poolings (all, side by side)")
    parser.add_argument("--concepts", nargs="+", action="extend", metavar="CUI", help="learn these alone (all)")
    parser.add_argument("--train", choices=("train", "train+valid"), help="what the kept head learns from, once all "
                        "else is settled on train alone (train)")  # fmt: skip


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    """How scores become concept sets."""
    parser.add_argument("--decoder", metavar="[CALIBRATION+]NAME[:VALUE][,empty]",
                        help=f"{', '.join(DECODERS)}; fixed takes a threshold and top-k a number; "
                        f"{' or '.join(CALIBRATIONS)} makes scores probabilities; empty lets an image have none "
                        f"(that of the run that is there, or {DEFAULT_DECODER})")  # fmt: skip
    parser.add_argument("--tune", choices=("folds", "valid"), help="tune the decoder on out-of-fold scores of train, "
                        "or on valid (folds)")  # fmt: skip
    parser.add_argument("--nested", action="store_true", default=None, help="estimate by nested cross-validation, too, "
                        "what head and decoder reach on images that neither has seen")  # fmt: skip


def _fit(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.runs.builder import fit_run

    # Heads leave the number of processes open, as scikit-learn does; here it is all cores.
    with parallel_config(n_jobs=-1):
        fit_run(args.name, args.store, args.data, args.out, **_given(args))


def _sweep(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.selection.sweep import sweep_runs

    grid = {key: _parse_values(value) for key, value in _split_pairs(args.grid, "--grid", "C=0.001,0.01,0.1")}
    with parallel_config(n_jobs=-1):
        sweep_runs(args.name, args.store, args.data, args.out, grid, by=args.by, **_given(args))


def _choose(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.selection.leaderboard import choose

    if args.json:
        logger.setLevel(logging.WARNING)  # what is printed is one JSON object
    with parallel_config(n_jobs=-1):
        table = choose(args.store, args.data, heads=args.heads, decoders=args.decoders, pooling=args.pooling)
    if args.json:
        print(json.dumps({"table": table}, indent=1))


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a run; None where the user left one open."""
    given = {key: getattr(args, key) for key in ("concepts", "decoder", "pooling", "train", "tune", "nested")}
    return given | {"params": None if args.set is None else _parse_settings(args.set)}


def _ensemble(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.ensembles.builder import make_ensemble

    with parallel_config(n_jobs=-1):
        make_ensemble(args.runs, args.out, args.how, decoder=args.decoder, tune=args.tune, nested=args.nested)


def _predict(args: argparse.Namespace) -> None:
    from heads.ensembles.prediction import predict_run

    predict_run(args.run, args.store, args.data, split=args.split, edition=args.edition)


def _table(args: argparse.Namespace) -> None:
    from heads.selection.recipe_table import print_table

    print_table(args.recipes, args.runs)


def _export(args: argparse.Namespace) -> None:
    from heads.runs.keras_model import export_run

    export_run(args.run, args.store, args.out)


def _parse_settings(settings: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; numbers between commas are a list."""
    return {key: _parse_setting(value) for key, value in _split_pairs(settings, "--set", "hidden=512")}


def _parse_setting(text: str) -> Any:
    values = _parse_values(text)
    are_numbers = all(isinstance(value, int | float) for value in values)
    return values if len(values) > 1 and are_numbers else _parse_value(text)


def _split_pairs(pairs: list[str], option: str, example: str) -> list[tuple[str, str]]:
    from cache.support.errors import UserError

    split = [pair.partition("=") for pair in pairs]
    odd = ["".join(parts) for parts in split if not parts[0] or not parts[1]]
    if odd:
        raise UserError(f"{option} '{odd[0]}': expected KEY=VALUE, such as {example}")
    return [(key, value) for key, _, value in split]


def _parse_value(text: str) -> Any:
    """A value is a JSON literal if it is one, else text."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text


def _parse_values(text: str) -> list[Any]:
    """Values between commas; those inside brackets belong to a list, which is one value."""
    values = _parse_value(f"[{text}]")
    return values if isinstance(values, list) else [_parse_value(each) for each in text.split(",")]


def _refuse_constant(name: str) -> float:
    from cache.support.errors import UserError

    raise UserError(f"--set: {name} is not a value; expected a finite number, true, false, null or text")


if __name__ == "__main__":
    sys.exit(main())
