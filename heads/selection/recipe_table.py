"""A table of recipes: the published scores of each, and those of its run."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cache.support.errors import DataError
from cache.support.reporting import report
from heads.data.official_score import with_interval
from heads.runs.folder import find_metrics
from heads.runs.metrics import RunMetrics

FIELDS = ("Whose", "Published", "Source", "Known", "Filled in")
"""The fields in the comment at the head of a recipe."""

NOT_REPRODUCIBLE = "not-reproducible.txt"
"""A file beside the recipes with ``TEAM: SCORES`` of systems that are described nowhere that was found; optional."""


@dataclass(frozen=True)
class Recipe:
    """The comment at the head of a recipe.

    Parameters
    ----------
    name : str
        The name of the file without its ending.
    fields : dict of str to str
        Whose system it is, its published scores, where it is described, what is known, and what is filled in.
    """

    name: str
    fields: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read the comment at the head of a file.

        Raises
        ------
        DataError
            One of `FIELDS` is missing.
        """
        head = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
        assert head is not None
        text = re.sub(r"\n#\s{2,}", " ", head.group())  # an indented line continues the one before
        fields = dict(re.findall(r"^# ([^:\n]+): (.+)$", text, re.MULTILINE))
        missing = [name for name in FIELDS if name not in fields]
        if missing:
            raise DataError(f"{path}: does not say '{missing[0]}' in its first lines; expected {', '.join(FIELDS)}")
        return cls(path.stem, fields)


def report_recipes(recipes: str | os.PathLike[str], runs: str | os.PathLike[str]) -> None:
    """Report a Markdown table: every recipe with its published scores, and those of its run on valid.

    Parameters
    ----------
    recipes : path
        Folder of the recipes.
    runs : path
        Folder of their runs, each named as its recipe.

    Raises
    ------
    DataError
        There is no recipe, or the head of one lacks a field.
    """
    recipes, runs = Path(recipes), Path(runs)
    found = [Recipe.read(path) for path in sorted(recipes.glob("*.mk"), key=lambda path: path.stem)]
    if not found:
        raise DataError(f"{recipes}: no recipe in it; expected files that end in .mk")
    report("| recipe | published: primary, secondary | here: primary F1 on valid | secondary |")
    report("|---|---|---|---|")
    for recipe in found:
        ours = _describe_scores(find_metrics(runs / recipe.name))
        report(f"| {recipe.name} | {_format_published(recipe.fields['Published'])} | {ours} |")
    for team, scores in _read_not_reproducible(recipes / NOT_REPRODUCIBLE):
        report(f"| {team} | {_format_published(scores)} | not reproducible: described nowhere that was found | |")


def _read_not_reproducible(path: Path) -> list[tuple[str, str]]:
    """Team and published scores of each line; lines with ``#`` in front are comments."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return re.findall(r"^([^#:]+): (.+)$", "\n".join(lines), re.MULTILINE)


def _format_published(scores: str) -> str:
    """Separate scores by commas.

    >>> _format_published("0.589 -")
    '0.589, –'
    """
    return scores.replace("-", "–").replace(" ", ", ")


def _describe_scores(metrics: RunMetrics | None) -> str:
    """Primary and secondary score of a run as two cells."""
    if metrics is None or metrics["valid"] is None:
        return "not run | "
    valid = metrics["valid"]
    secondary = with_interval(valid, "secondary") if valid["secondary_interval"] is not None else "–"
    return f"{with_interval(valid, 'primary')} | {secondary}"
