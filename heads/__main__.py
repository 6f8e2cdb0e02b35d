"""``python -m heads``: train a head on a store, predict with a run."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from eval.editions import EDITIONS, LATEST, find_edition
from heads import DECODERS, HEADS


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)

    from cache.command import run_command
    from eval.errors import UserError

    return run_command("heads", lambda: args.command(args), UserError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m heads", description="Train heads on a feature store, and predict.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fit = commands.add_parser("fit", help="train a head, score it on valid, keep it as a run")
    fit.add_argument("name", metavar="NAME", help=f"the head: {', '.join(HEADS)}")
    fit.add_argument("--store", type=Path, required=True, help="feature store")
    fit.add_argument("--data", type=Path, required=True, help="data folder with the label files")
    fit.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    fit.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE",
                     help="parameters of the head (those of the run that is there, or its defaults)")  # fmt: skip
    fit.add_argument("--decoder", metavar="NAME[:VALUE]",
                     help=f"{', '.join(DECODERS)}; fixed takes a threshold "
                     "(that of the run that is there, or fixed:0.3)")  # fmt: skip
    fit.add_argument("--pooling", metavar="NAME", help="one of the store's several poolings (all, side by side)")
    fit.add_argument("--train", choices=("train", "train+valid"), help="what the kept head learns from, once all else "
                     "is settled on train alone (train)")  # fmt: skip
    fit.add_argument("--tune", choices=("folds", "valid"), help="tune the decoder on out-of-fold scores of train, or "
                     "on valid (folds)")  # fmt: skip
    fit.set_defaults(command=_fit)
    predict = commands.add_parser("predict", help="write a run's submission, checked by the edition's rules")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    predict.add_argument("--store", type=Path, required=True, help="feature store")
    predict.add_argument("--data", type=Path, help="data folder; its list of ids decides rows and order")
    predict.add_argument("--split", default="test", help="train, valid or test (test)")
    predict.add_argument("--edition", type=int, default=LATEST, choices=list(EDITIONS), help=f"year ({LATEST})")
    predict.set_defaults(command=_predict)
    return parser


def _fit(args: argparse.Namespace) -> None:
    from joblib import parallel_config

    from heads.fitting import fit_run

    given = {key: getattr(args, key) for key in ("decoder", "pooling", "train", "tune")}
    given["params"] = None if args.set is None else _parse_settings(args.set)
    # Heads leave the number of processes open, as scikit-learn does; here it is all cores.
    with parallel_config(n_jobs=-1):
        fit_run(args.name, args.store, args.data, args.out, given, warn=_warn)


def _predict(args: argparse.Namespace) -> None:
    from heads.predicting import predict_run

    predict_run(args.run, args.store, args.data, args.split, find_edition(args.edition), warn=_warn)


def _parse_settings(settings: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; a value is a JSON literal if it is one, else text."""
    from cache.errors import UserError

    params: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UserError(f"--set '{setting}': expected KEY=VALUE, such as hidden=512")
        try:
            params[key] = json.loads(value, parse_constant=_refuse_constant)
        except ValueError:
            params[key] = value
    return params


def _refuse_constant(name: str) -> float:
    from cache.errors import UserError

    raise UserError(f"--set: {name} is not a value; expected a finite number, true, false, null or text")


def _warn(line: str) -> None:
    print(f"heads: warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
