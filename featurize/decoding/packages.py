"""The packages that read DICOM: whether they are installed, and what to install."""

import importlib.util
import logging
import re
from functools import cache
from typing import Any

from featurize.decoding.code_stream import DCT, LOSSLESS

PIP_LINE = "pip install pydicom pylibjpeg pylibjpeg-openjpeg pyjpegls"
"""The command that installs what reads DICOM, the extra `dicom`."""

DISTRIBUTIONS = ("pydicom", "pyjpegls", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")
"""Names under which pip may have installed what reads DICOM."""

LIBJPEG_PIP_LINE = "pip install pylibjpeg pylibjpeg-libjpeg (under the GPL)"
GDCM_PIP_LINE = "pip install python-gdcm"
"""The commands that install what reads the JPEG that no package of the extra reads: JPEG Lossless, of which either will
do, and JPEG of 12 bits, which GDCM cannot read."""


_NUMBER = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+")


class Unsupported(ValueError):
    """A DICOM file without an image, or with one that no installed package can read."""


def is_installed() -> bool:
    """Whether pydicom, of the extra `dicom`, is installed."""
    return importlib.util.find_spec("pydicom") is not None


@cache
def load_pydicom() -> Any:
    """Import pydicom, only when there is a file to read, and silence its log.

    Raises
    ------
    Unsupported
        It is not installed.
    """
    if not is_installed():
        raise Unsupported(f"a DICOM file; to read it: {PIP_LINE}")
    import pydicom
    import pydicom.encaps
    import pydicom.pixels

    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom


def _is_valid(syntax: str) -> bool:
    """Whether a number is one that the standard allows (PS3.5, section 9.1); pydicom warns of others."""
    return len(syntax) <= 64 and _NUMBER.fullmatch(syntax) is not None


def name_syntax(syntax: str) -> str:
    """Name a transfer syntax, as in ``JPEG Lossless``; its number, if it is unknown."""
    if not _is_valid(syntax):
        return syntax or "an unknown transfer syntax"
    name: str = load_pydicom().uid.UID(syntax).name
    return name.split(",")[0] or "an unknown transfer syntax"


def find_decoder(syntax: str) -> Any | None:
    """Find pydicom's decoder of a transfer syntax; None if it has none, whatever is installed."""
    try:
        return load_pydicom().pixels.get_decoder(syntax) if _is_valid(syntax) else None
    except NotImplementedError:
        return None


def find_remedy(syntax: str, bits: int = 8) -> str:
    """Find the command that installs what unpacks a transfer syntax.

    Parameters
    ----------
    syntax : str
        The number of the transfer syntax.
    bits : int
        Bits per sample, as far as they are known.

    Returns
    -------
    str
        Empty if an installed package unpacks it, and if no package does.
    """
    decoder = find_decoder(syntax)
    if decoder is None or decoder.is_native:
        return ""
    is_deep = syntax in DCT and bits > 8
    if set(decoder.available_plugins) - ({"gdcm", "pillow"} if is_deep else set()):
        return ""
    if is_deep:
        return LIBJPEG_PIP_LINE
    return f"{LIBJPEG_PIP_LINE}, or {GDCM_PIP_LINE}" if syntax in (*DCT, *LOSSLESS) else PIP_LINE
