"""From the content of a report to one HTML file that needs nothing else."""

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import jinja2

from cache.lock import locked
from cache.support.errors import ParameterError, RunError, UserError
from cache.support.files import write_text
from cache.support.messages import count
from cache.support.reporting import report, warn
from heads.runs.files import writing
from heads.runs.folder import REPORT, read_metrics
from show.report.content import MAX_LISTED, Content, collect
from show.report.gallery import HIT, MISSED, OUTCOMES, WRONG, Explain
from show.report.outcome import Outcome

PARTS = Path(__file__).parent
"""Folder of the template, the style sheet and the script."""

MARKS = {HIT: "✓", MISSED: "○", WRONG: "✕"}
"""Outcomes have a mark each, so that colour alone tells nothing."""

SECTIONS = {
    "scores": "Scores", "decoding": "Decoding", "concepts": "Concepts", "calibration": "Calibration",
    "confusion": "Confusion", "data": "Data", "gallery": "Images", "provenance": "Provenance",
}  # fmt: skip


def make_report(
    run: str | os.PathLike[str],
    against: Sequence[str | os.PathLike[str]] = (),
    *,
    store: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    heat_maps: int = 0,
) -> Path:
    """Write the report of a finished run.

    Parameters
    ----------
    run : path
        The folder of the run. The report is ``report.html`` in it.
    against : sequence of path
        Folders of other runs on the same data, to compare it with.
    store, data : path, optional
        Where the store and the data folder are now, if they were moved since the run was made.
    heat_maps : int
        Images of the gallery that get heat maps. They need the network.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    RunError
        A run is missing, unfinished, damaged, or of other data.
    StoreError
        The store is gone, damaged or of other features; the message has the command that makes it again.
    DataError
        The labels are gone or at fault.
    ParameterError
        A run is to be compared with itself, or there is nothing to compare by; or `heat_maps` is negative.

    Warns
    -----
    DataWarning
        There are no heat maps, because the run cannot be explained; or the labels or the store have changed.
    """
    if heat_maps < 0:
        raise ParameterError(f"heat_maps = {heat_maps}, expected 0 or more")
    folder = Path(run)
    outcome = Outcome.open(folder, Path(store) if store else None, Path(data) if data else None)
    explain = _open_explainer(outcome) if heat_maps else None
    content = collect(outcome, [Path(each) for each in against], explain, heat_maps)
    html = render(content)
    outcome.labelled.store.check_unchanged()
    with locked(folder, RunError):
        if read_metrics(folder)["requests"] != outcome.metrics["requests"]:
            raise RunError(f"{folder}: another run has taken its place meanwhile; run the same command again")
        with writing(folder):
            write_text(folder / REPORT, html)
    n_pictures = len(content.gallery.pictures) if content.gallery else 0
    shown = f"{len(content.concepts):,} concepts, {n_pictures:,} images, {len(html.encode()) / 1e6:.1f} MB"
    report(f"{folder / REPORT}: {shown}; open it in a browser")
    return folder / REPORT


def _open_explainer(outcome: Outcome) -> Explain | None:
    from show.report.heat_maps import HeatMaps

    try:
        return HeatMaps(outcome)
    except UserError as error:
        warn(f"no heat maps: {error}")
        return None


def render(content: Content) -> str:
    """The page as HTML. Everything that comes from the data is escaped.

    Parameters
    ----------
    content : Content
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    style, script = ((PARTS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = hashlib.sha256(script.encode()).digest()
    is_measured, gallery = bool(content.plots["decoding"]), content.gallery
    absent = set() if is_measured else {"decoding", "concepts", "calibration", "confusion"}
    absent |= set() if gallery else {"gallery"}
    return (
        environment.get_template("page.html")
        .render(
            content=content,
            style=style,
            script=script,
            script_digest=base64.b64encode(digest).decode(),
            sections=[(id, name) for id, name in SECTIONS.items() if id not in absent],
            max_listed=MAX_LISTED,
            outcomes=OUTCOMES,
            marks=MARKS,
            has_maps=any(chip.heat for picture in (gallery.pictures if gallery else []) for chip in picture.chips),
        )
        .lstrip()
    )
