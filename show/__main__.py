"""``python -m show``: look at what a run predicts."""

import argparse
import sys
from importlib import import_module

from cache.support.command import run_command
from show.commands import COMMANDS


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_command("show", make_parser(), argv)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line from the modules of the commands."""
    parser = argparse.ArgumentParser(prog="python -m show", description="Look at what a run predicts.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        module = import_module(f"show.commands.{name}")
        command = commands.add_parser(name, help=purpose, description=module.__doc__)
        module.add_options(command)
        command.set_defaults(command=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
