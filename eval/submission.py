"""Submissions: written in an edition's format, and checked by reading the bytes back."""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cache.support.errors import DataError
from cache.support.files import replacing
from cache.support.messages import quote
from eval.csv_rows import read_rows, split_concepts
from eval.editions import LATEST, Edition, find_edition
from eval.faults import find_faults
from eval.files import MEMBER
from eval.form_check import HEADER


def render_submission(ids: Sequence[str], concepts: Sequence[Sequence[str]], edition: int | Edition = LATEST) -> bytes:
    """Make a submission in an edition's format.

    Parameters
    ----------
    ids : sequence of str, length n_images
        In the order of the official list.
    concepts : sequence of sequences of str, length n_images
        The concepts of each image.
    edition : int or Edition
        A year, or its rules.

    Returns
    -------
    bytes
        The content of the file, for `write_submission`.

    Raises
    ------
    DataError
        The edition would refuse it, or it would not read back as what was given.
    ParameterError
        There was no such edition.

    Examples
    --------
    >>> render_submission(["a1", "a2"], [["C0040405", "C1"], []])
    b'ID,CUIs\\na1,C0040405;C1\\na2,\\n'
    """
    edition = find_edition(edition)
    text = io.StringIO(newline="")
    rows = zip(ids, map(";".join, concepts), strict=True)
    if edition.quoted:
        writer = csv.writer(text, delimiter=edition.delimiter, lineterminator="\n")
        if _writes_header(edition):
            writer.writerow(HEADER)
        writer.writerows(rows)
    else:
        text.writelines(f"{id}{edition.delimiter}{cell}\n" for id, cell in rows)
    try:
        data = text.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"the submission cannot be written: {error}; correct the list of ids") from None
    faults = find_faults(data, ids, edition)
    if faults:
        raise DataError(f"the submission would be refused in {edition.year}: {faults[0]}")
    _check_reading_back(data, ids, concepts, edition)
    return data


def write_submission(path: str | Path, data: bytes, edition: int | Edition = LATEST) -> list[Path]:
    """Write a rendered submission, and beside it a zip if the edition is handed in as one.

    A file appears as a whole or not at all.

    Parameters
    ----------
    path : str or Path
        The .csv to write.
    data : bytes
        From `render_submission`.
    edition : int or Edition
        A year, or its rules.

    Returns
    -------
    list of Path
        The files that were written. Hand in the last one.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     paths = write_submission(f"{folder}/submission.csv", render_submission(["a1"], [["C0040405"]]))
    >>> [path.name for path in paths]
    ['submission.csv', 'submission.zip']
    """
    path, edition = Path(path), find_edition(edition)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    if not edition.zipped:
        return [path]
    zipped = path.with_suffix(".zip")
    with replacing(zipped) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date, so that the same submission gives the same bytes.
        archive.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return [path, zipped]


def _writes_header(edition: Edition) -> bool:
    return edition.has_header and edition.delimiter == ","


def _check_reading_back(data: bytes, ids: Sequence[str], concepts: Sequence[Sequence[str]], edition: Edition) -> None:
    """Refuse what reads back as something else: a concept with a `;` in it would become two."""
    rows = list(read_rows(data, edition, "submission"))[1 if _writes_header(edition) else 0 :]
    for (_, (id, cell)), expected, predicted in zip(rows, ids, concepts, strict=True):
        if id != expected or split_concepts(cell) != (list(predicted) or [""]) or "" in predicted:
            raise DataError(
                f"image {quote(expected)} with {quote(';'.join(predicted))} would not read back as it is; correct the "
                "id, or concepts that are empty, have spaces around them or contain a ';'"
            )
