"""Submissions: written for an edition, and checked by reading the bytes back."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cache.support.errors import UserError
from cache.support.files import replacing
from cache.support.messages import quote
from eval.csv_rows import read_rows, split_concepts
from eval.editions import Edition
from eval.faults import find_faults
from eval.files import MEMBER
from eval.form_check import HEADER


def render_submission(ids: Sequence[str], concepts: Sequence[Sequence[str]], edition: Edition) -> bytes:
    """A submission's bytes in an edition's format.

    Parameters
    ----------
    ids : sequence of str, length n_images
        In the order of the official list.
    concepts : sequence of sequences of str, length n_images
        The concepts of each image.
    edition : Edition

    Returns
    -------
    bytes

    Raises
    ------
    UserError
        The edition's own rules would refuse it, or it would not read back as what was given.
    """
    text = io.StringIO(newline="")
    rows = zip(ids, map(";".join, concepts), strict=True)
    if edition.quoted:
        writer = csv.writer(text, delimiter=edition.delimiter, lineterminator="\n")
        if _has_header(edition):
            writer.writerow(HEADER)
        writer.writerows(rows)
    else:
        text.writelines(f"{id}{edition.delimiter}{cell}\n" for id, cell in rows)
    try:
        data = text.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the submission cannot be written: {error}; mend the list of ids") from None
    faults = find_faults(data, ids, edition, "submission")
    if faults:
        raise UserError(f"the submission would be refused in {edition.year}: {faults[0]}")
    _refuse_other(data, ids, concepts, edition)
    return data


def write_submission(path: Path, data: bytes, edition: Edition) -> list[Path]:
    """Write a rendered submission, whole or not at all, and the zip beside it where the edition wants one.

    Returns
    -------
    list of Path
        What was written; the last one is what is handed in.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    if not edition.zipped:
        return [path]
    zipped = path.with_suffix(".zip")
    with replacing(zipped) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same submission is the same file.
        archive.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return [path, zipped]


def _has_header(edition: Edition) -> bool:
    return edition.header and edition.delimiter == ","


def _refuse_other(data: bytes, ids: Sequence[str], concepts: Sequence[Sequence[str]], edition: Edition) -> None:
    """A concept with a `;` in it, say, would be accepted as two."""
    rows = list(read_rows(data, edition, "submission"))[1 if _has_header(edition) else 0 :]
    for (_, (id, cell)), expected, named in zip(rows, ids, concepts, strict=True):
        if id != expected or split_concepts(cell) != (list(named) or [""]) or "" in named:
            raise UserError(
                f"image {quote(expected)} with {quote(';'.join(named))} cannot be written so that it reads back the "
                "same; mend the id, or concepts that are empty, have spaces around them or a ';' in them"
            )
