"""``radconcepts STAGE …``: run the command line of a stage; ``radconcepts featurize`` is ``python -m featurize``."""

import runpy
import sys
from collections.abc import Sequence

from cache.support.command import print_line
from cache.support.versions import __version__

STAGES = {
    "phantoms": ("featurize.phantoms", "draw phantoms: a small data set that needs no download"),
    "featurize": ("featurize", "embed every image of a data folder into a feature store, once"),
    "cache": ("cache", "look at a store: what it holds, whether it is whole, duplicates"),
    "heads": ("heads", "train heads on a store, compare and join them, predict and export"),
    "eval": ("eval", "score, compare and check submissions by the official rules"),
    "show": ("show", "look at what a run predicts for images, and where it sees it"),
}
"""The package of each stage, and what it does."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the stage that the first word names with the words after it, as ``python -m`` does.

    Parameters
    ----------
    words : sequence of str, optional
        Those of this process's command line by default.
    """
    stage, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if stage in STAGES:
        sys.argv = [stage, *rest]
        runpy.run_module(STAGES[stage][0], run_name="__main__", alter_sys=True)
    elif stage == "--version":
        print_line(f"radconcepts {__version__}")
    elif stage in ("--help", "-h"):
        for line in (
            "usage: radconcepts STAGE ...",
            "",
            *(f"  {name:<11}{does}" for name, (_, does) in STAGES.items()),
        ):
            print_line(line)
        print_line("")
        print_line("`radconcepts STAGE --help` has the options; `radconcepts --version` the version.")
    else:
        sys.exit(f"radconcepts: error: no stage {stage!r}; there are {', '.join(STAGES)}")


if __name__ == "__main__":
    main()
