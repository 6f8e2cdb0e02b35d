"""Submissions: written for an edition, and checked by reading the bytes back."""

import csv
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from eval.editions import Edition
from eval.errors import UserError
from eval.form import HEADER, form_faults
from eval.official import Fault, is_skipped, submission_rows

MEMBER = "submission.csv"
"""The one file that a zipped submission holds."""


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
        The edition's own rules would refuse it.
    """
    text = io.StringIO(newline="")
    if edition.quoted:
        writer = csv.writer(text, delimiter=edition.delimiter, lineterminator="\n")
        if edition.header and edition.delimiter == ",":
            writer.writerow(HEADER)
        writer.writerows((id, ";".join(cuis)) for id, cuis in zip(ids, concepts, strict=True))
    else:
        text.writelines(f"{id}{edition.delimiter}{';'.join(cuis)}\n" for id, cuis in zip(ids, concepts, strict=True))
    data = text.getvalue().encode("utf-8")
    faults = list(find_faults(data, ids, edition, "submission"))
    if faults:
        raise UserError(f"the submission would be refused in {edition.year}: {faults[0]}")
    return data


def write_submission(path: Path, data: bytes, edition: Edition) -> list[Path]:
    """Write a rendered submission, whole or not at all, and the zip beside it where the edition wants one.

    Returns
    -------
    list of Path
        What was written; the last one is what is handed in.
    """
    with _replacing(path) as temporary:
        temporary.write_bytes(data)
    if not edition.zipped:
        return [path]
    zipped = path.with_suffix(".zip")
    with _replacing(zipped) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        # A fixed date: the same submission is the same file.
        archive.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return [path, zipped]


def read_bytes(path: Path) -> bytes:
    """A submission's bytes, out of the zip if it is one.

    Raises
    ------
    UserError
        The zip is damaged, or holds something else than one ``submission.csv``.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.namelist() != [MEMBER]:
                raise UserError(f"{path}: holds {archive.namelist()}, expected one file named {MEMBER}")
            return archive.read(MEMBER)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path}: a zip that cannot be read ({error}); make it again") from None


def find_faults(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> Iterator[Fault]:
    """Find every fault for which an edition refuses a submission, one a line.

    Parameters
    ----------
    data : bytes
    ids : sequence of str
        The official ids in their order.
    edition : Edition
    name : str
        What errors call the file.
    """
    lines = set()
    for fault in chain(form_faults(data, ids, name) if edition.form else (), _row_faults(data, ids, edition, name)):
        if fault.line not in lines:
            lines.add(fault.line)
            yield fault


def _row_faults(data: bytes, ids: Sequence[str], edition: Edition, name: str) -> Iterator[Fault]:
    counted = {id: None for id in ids if not is_skipped(id, edition)}
    try:
        for _, fault in submission_rows(data, edition, counted, name):
            if fault:
                yield fault
    except UserError as error:
        yield Fault(0, str(error))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is synced and takes the place of `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)
