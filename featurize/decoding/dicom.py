"""DICOM: from a file's bytes to the grey levels or colours that a radiologist's screen would show.

Rules and numbers of sections are those of the standard, DICOM PS3.3. pydicom reads the file; compressed pixels are read
by its own plugins and those it finds.
"""

import importlib.util
import io
import logging
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIP_LINE = "pip install pydicom pylibjpeg pylibjpeg-openjpeg pyjpegls"
"""The command that installs what reads DICOM, the extra `dicom`."""

MOST_INFLATED = 2**28
"""Bytes that a deflated file may unpack to: no image of the allowed size needs more."""


class Unsupported(ValueError):
    """A DICOM file that shows no image, or one that nothing installed can read."""


def is_dicom(data: bytes) -> bool:
    """Whether these bytes are a DICOM file: four letters stand after a preamble of 128 bytes."""
    return data[128:132] == b"DICM"


def is_installed() -> bool:
    """Whether the `dicom` extra is there."""
    return importlib.util.find_spec("pydicom") is not None


def read_dicom(data: bytes, most_pixels: int, percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    """Read the middle frame of a DICOM file as 8 bits.

    Grey goes through rescaling (C.11.1), then the first lookup table or window of the file (C.11.2), or a stretch
    between percentiles where there is none and grey has more than 8 bits; MONOCHROME1 is inverted, so that air is
    black. Palettes and YBR become RGB.

    Parameters
    ----------
    data : bytes
        The file's content.
    most_pixels : int
        Most pixels that a frame may have; more is refused before it is unpacked.
    percentiles : tuple of float
        What grey without a window is stretched between, in percent.

    Returns
    -------
    ndarray of uint8, shape (height, width) or (height, width, 3)

    Raises
    ------
    Unsupported
        It shows no image, too large a one, or one that needs a plugin that is not installed.
    Exception
        Anything that pydicom raises on a damaged file.
    """
    _refuse_bomb(data)
    pydicom = _pydicom()
    dataset = pydicom.dcmread(io.BytesIO(data))
    if not {"Rows", "Columns", "PixelData"} <= set(dataset.dir()):
        raise Unsupported(f"a DICOM file without an image ({dataset.file_meta.get('MediaStorageSOPClassUID', '')})")
    if dataset.Rows * dataset.Columns > most_pixels:
        raise Unsupported(f"{dataset.Columns}x{dataset.Rows} pixels, more than {most_pixels:,}")
    middle = (int(dataset.get("NumberOfFrames") or 1) - 1) // 2
    pixels = _unpack(dataset, middle)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _to_8_bits(pydicom.pixels.apply_color_lut(pixels, dataset))
    return _to_8_bits(pixels) if pixels.ndim == 3 else _show(pixels, dataset, middle, percentiles)


def _unpack(dataset: Any, frame: int) -> NDArray[Any]:
    """Pixels of one frame, YBR as RGB, after a look at the size that compressed pixels declare themselves."""
    pydicom = _pydicom()
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not syntax.is_deflated:
        count = int(dataset.get("NumberOfFrames") or 1)
        held = _declared_size(pydicom.encaps.get_frame(dataset.PixelData, frame, number_of_frames=count))
        if held and held != (dataset.Rows, dataset.Columns):
            raise Unsupported(f"declares {dataset.Columns}x{dataset.Rows} pixels and holds {held[1]}x{held[0]}")
    try:
        pixels: NDArray[Any] = pydicom.pixels.pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError) as error:
        lacking = ("missing dependencies" in str(error), "does not support" in str(error))
        if any(lacking) or isinstance(error, NotImplementedError):
            raise Unsupported(
                f"compressed as {syntax.name}, which nothing installed reads; see pydicom's plugins"
            ) from error
        raise
    return pixels


def _declared_size(packed: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG 2000 or JPEG-LS stream declares: its unpacker would believe any."""
    if packed[:4] == b"\xff\x4f\xff\x51":  # start of stream, SIZ: right and lower end, then left and upper
        right, lower, left, upper = (int.from_bytes(packed[at : at + 4], "big") for at in (8, 12, 16, 20))
        return lower - upper, right - left
    at = packed.find(b"\xff\xf7", 0, 1000) if packed[:2] == b"\xff\xd8" else -1
    if at < 0:
        return None
    return int.from_bytes(packed[at + 5 : at + 7], "big"), int.from_bytes(packed[at + 7 : at + 9], "big")


def _show(stored: NDArray[Any], dataset: Any, frame: int, percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    """Grey as a screen would show it."""
    values = _rescale(stored, dataset, frame)
    groups = list(_macros(dataset, frame, "FrameVOILUTSequence"))
    if "VOILUTSequence" in dataset:
        shown = _look_up(values, dataset.VOILUTSequence[0])
    elif group := next((each for each in groups if "WindowCenter" in each and "WindowWidth" in each), None):
        function = group.get("VOILUTFunction", "LINEAR")
        shown = window(values, _first(group.WindowCenter), _first(group.WindowWidth), function)
    elif dataset.BitsStored <= 8 and values is stored:
        shown = stored.astype(np.float64) * 255 / (2**dataset.BitsStored - 1)
    else:
        padding = dataset.get("PixelPaddingValue")
        inside = values if padding is None else values[stored != padding]
        low, high = np.percentile(inside if inside.size else values, percentiles)
        shown = (values - low) / (high - low if high > low else 1.0) * 255
    grey = np.clip(np.round(shown), 0, 255).astype(np.uint8)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def window(values: NDArray[Any], center: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """Map grey levels to 0 to 255 by a window (C.11.2.1.2 and C.11.2.1.3).

    Parameters
    ----------
    values : ndarray
    center, width : float
        In the units of `values`; the width is above 0, and at least 1 for `LINEAR`.
    function : str
        ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> window(np.array([-1000, 40, 1000]), 40.5, 401).tolist()
    [0.0, 127.5, 255.0]
    """
    values = values.astype(np.float64)
    if width <= 0 or (function == "LINEAR" and width < 1):
        raise ValueError(f"a window of width {width}")
    if function == "SIGMOID":
        return 255 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR" and width == 1:
        return np.where(values <= center - 0.5, 0.0, 255.0)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / width + 0.5, 0, 1) * 255


def _rescale(stored: NDArray[Any], dataset: Any, frame: int) -> NDArray[Any]:
    """Stored values in the units of the modality, such as Hounsfield's."""
    if "ModalityLUTSequence" in dataset:
        table: NDArray[Any] = _pydicom().pixels.apply_modality_lut(stored, dataset)
        return table
    groups = _macros(dataset, frame, "PixelValueTransformationSequence")
    group = next((each for each in groups if "RescaleSlope" in each and "RescaleIntercept" in each), None)
    if group is None:
        return stored
    return stored * float(group.RescaleSlope) + float(group.RescaleIntercept)


def _look_up(values: NDArray[Any], table: Any) -> NDArray[np.float64]:
    """The first VOI lookup table (C.11.2.1.1): values outside it take its ends."""
    length, first, bits = (int(each) for each in table.LUTDescriptor)
    entries = np.asarray(table.LUTData if not isinstance(table.LUTData, bytes) else np.frombuffer(table.LUTData, "<u2"))
    length = min(length or 2**16, len(entries))
    places = np.clip(np.round(values).astype(np.int64) - first, 0, length - 1)
    shown: NDArray[np.float64] = entries[places] * 255.0 / (2**bits - 1)
    return shown


def _macros(dataset: Any, frame: int, name: str) -> Iterator[Any]:
    """Where a frame's values can stand: the file itself, or its groups for this frame and for all."""
    yield dataset
    for sequence, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        groups = dataset.get(sequence) or []
        if len(groups) > number and groups[number].get(name):
            yield groups[number].get(name)[0]


def _first(value: Any) -> float:
    """The first of one or several."""
    return float(value if isinstance(value, str) or not hasattr(value, "__getitem__") else value[0])


def _to_8_bits(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours by the size of their type."""
    return (colours >> 8 * (colours.dtype.itemsize - 1)).astype(np.uint8)


def _refuse_bomb(data: bytes) -> None:
    """Refuse a deflated file that unpacks to more than any image (the standard's part 10 says where it begins)."""
    begin = 144 + int.from_bytes(data[140:144], "little")
    if b"1.2.840.10008.1.2.1.99" in data[:begin]:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        if len(unpacker.decompress(data[begin:], MOST_INFLATED + 1)) > MOST_INFLATED:
            raise Unsupported(f"unpacks to more than {MOST_INFLATED:,} bytes")


@cache
def _pydicom() -> Any:
    """pydicom, which is loaded only when there is a file to read, and tells nobody of what it thinks of it."""
    if not is_installed():
        raise Unsupported(f"a DICOM file; to read it: {PIP_LINE}")
    import pydicom
    import pydicom.pixels

    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom
