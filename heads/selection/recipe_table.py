"""The published scores of recipes beside those of their runs."""

import re
from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import UserError
from cache.support.reporting import report
from heads.data.official_score import with_interval
from heads.runs.folder import find_metrics
from heads.runs.metrics import RunMetrics

FIELDS = ("Whose", "Published", "Source", "Known", "Filled in")
"""What the head of a recipe says."""

NOT_REPRODUCIBLE = (
    ("MICLabNM", "0.579 0.883"),
    ("Kaprov", "0.460 0.730"),
    ("CS Morgan", "0.107 0.210"),
)
"""Teams of the 2024 table whose systems are described nowhere that could be found."""


@dataclass(frozen=True)
class Recipe:
    """The head of a recipe's file.

    Parameters
    ----------
    name : str
        The file's name without its ending.
    fields : dict of str to str
        Whose system it is, its published scores, where it is described, what is known, and what is filled in.
    """

    name: str
    fields: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read the comments at the start of a file.

        Raises
        ------
        UserError
            It does not say whose system it is, or another of `FIELDS`.
        """
        head = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
        assert head is not None
        text = re.sub(r"\n#\s{2,}", " ", head.group())  # a line that goes on is indented
        fields = dict(re.findall(r"^# ([^:\n]+): (.+)$", text, re.MULTILINE))
        missing = [name for name in FIELDS if name not in fields]
        if missing:
            raise UserError(f"{path}: does not say '{missing[0]}' in its first lines; expected {', '.join(FIELDS)}")
        return cls(path.stem, fields)


def print_table(recipes: Path, runs: Path) -> None:
    """Print a Markdown table: every recipe with its published scores, and those of its run on valid.

    Parameters
    ----------
    recipes : Path
        Folder of the recipes.
    runs : Path
        Folder of their runs, each under its recipe's name.

    Raises
    ------
    UserError
        There is no recipe, or one without its head.
    """
    found = [Recipe.read(path) for path in sorted(recipes.glob("*.mk"), key=lambda path: path.stem)]
    if not found:
        raise UserError(f"{recipes}: no recipe in it; expected files that end in .mk")
    report("| recipe | published: primary, secondary | here: primary F1 on valid | secondary |")
    report("|---|---|---|---|")
    for recipe in found:
        report(
            f"| {recipe.name} | {_published(recipe.fields['Published'])} | {_ours(find_metrics(runs / recipe.name))} |"
        )
    for team, scores in NOT_REPRODUCIBLE:
        report(f"| {team} | {_published(scores)} | not reproducible: described nowhere that was found | |")


def _published(scores: str) -> str:
    """
    >>> _published("0.589 -")
    '0.589, –'
    """
    return scores.replace("-", "–").replace(" ", ", ")


def _ours(metrics: RunMetrics | None) -> str:
    if metrics is None or metrics["valid"] is None:
        return "not run | "
    valid = metrics["valid"]
    secondary = with_interval(valid, "secondary") if valid["secondary"] is not None else "–"
    return f"{with_interval(valid, 'primary')} | {secondary}"
