"""Lookup tables of DICOM: of the modality, of the display, and palettes (PS3.3, C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).

A descriptor says how many entries there are, which value the first is for, and how many bits an entry has. Devices get
all three wrong, and the type of the data as well, so each is compared with the entries themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.decoding.attributes import find_numbers, find_values
from featurize.decoding.packages import load_pydicom

_COLOURS = ("Red", "Green", "Blue")
_PALETTE = "PaletteColorLookupTable"


@dataclass(frozen=True)
class LookupTable:
    """Entries, one for each value from the first on.

    Attributes
    ----------
    first : int
        The value that the first entry is for.
    entries : ndarray of uint16, shape (n_entries,) or (n_entries, 3)
    bits : int
        Bits of an entry; white is the greatest number of so many.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def look_up(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Find the entries of values; those outside the table have its ends.

        Examples
        --------
        >>> table = LookupTable(10, np.array([3, 5, 7], np.uint16), 8)
        >>> table.look_up(np.array([-1, 10, 11, 99])).tolist()
        [3, 3, 5, 7]
        """
        return self.entries[self.find_places(values)]

    def find_places(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Find the places of values among the entries."""
        is_whole = values.dtype.kind in "iu"
        whole = values.astype(np.int64) if is_whole else np.round(np.nan_to_num(values.astype(np.float64)))
        places: NDArray[np.intp] = np.clip(whole - self.first, 0, len(self.entries) - 1).astype(np.intp)
        return places


def read_table(item: Any, low: float, high: float) -> LookupTable | None:
    """Read an item of a sequence of lookup tables.

    Parameters
    ----------
    item : pydicom.Dataset
    low, high : float
        Least and greatest value that can be looked up.

    Returns
    -------
    LookupTable or None
        None if the item lacks descriptor or entries.
    """
    descriptor = _find_words(item, "LUTDescriptor")
    entries = _find_entries(item, "LUTData", descriptor)
    return _make_table(descriptor, entries, low, high)


def read_palette(dataset: Any, low: float, high: float) -> LookupTable | None:
    """Read the palette of an image, with three colours per entry.

    Parameters
    ----------
    dataset : pydicom.Dataset
    low, high : float
        Least and greatest value that can be looked up.

    Returns
    -------
    LookupTable or None
        None if a colour lacks descriptor or entries.
    """
    descriptor = _find_words(dataset, f"Red{_PALETTE}Descriptor")
    columns = [_find_entries(dataset, f"{colour}{_PALETTE}Data", descriptor, True) for colour in _COLOURS]
    if not all(len(column) for column in columns):
        return _make_table(descriptor, _expand_segments(dataset, descriptor), low, high)
    shortest = min(len(column) for column in columns)
    return _make_table(descriptor, np.stack([column[:shortest] for column in columns], axis=-1), low, high)


def _make_table(
    descriptor: NDArray[np.uint16], entries: NDArray[np.uint16], low: float, high: float
) -> LookupTable | None:
    """Compare a descriptor with the entries, and the first value with those that can be looked up."""
    if len(descriptor) < 3 or not entries.size:
        return None
    first, bits = int(descriptor[1]), int(descriptor[2])
    # Whether the first value has a sign depends on what is looked up, not on its type.
    if first >= 2**15 and (low < 0 or first > high):
        first -= 2**16
    used = int(entries.max()).bit_length()
    # 16 bits are often those of the container.
    bits = max(bits, used) if 1 <= bits < 16 else max(8, used)
    return LookupTable(first, entries, bits)


def _find_entries(
    dataset: Any, name: str, descriptor: NDArray[np.uint16], may_be_packed: bool = False
) -> NDArray[np.uint16]:
    """Find the entries of a table, of which those of 8 bits may be packed, two per word."""
    words = _find_words(dataset, name)
    if len(descriptor) < 3:
        return words[:0]
    n_entries, bits = int(descriptor[0]) or 2**16, int(descriptor[2])
    is_half = len(words) < n_entries and 2 * len(words) == n_entries + n_entries % 2
    if is_half and (may_be_packed or bits <= 8):
        words = words.astype("<u2").view(np.uint8).astype(np.uint16)
    return words[:n_entries]


def _find_words(dataset: Any, name: str) -> NDArray[np.uint16]:
    """Find the numbers of 16 bits of an attribute, whatever its type; none if one of them is no number."""
    values = find_values(dataset, name)
    if len(values) == 1 and isinstance(values[0], bytes):
        is_swapped = dataset[name].VR != "OB" and dataset.original_encoding[1] is False
        data = values[0] + bytes(len(values[0]) % 2)
        return np.frombuffer(data, ">u2" if is_swapped else "<u2").astype(np.uint16)
    numbers = np.array(find_numbers(dataset, name), np.float64)
    return (numbers % 2**16).astype(np.uint16) if np.isfinite(numbers).all() else np.empty(0, np.uint16)


def _expand_segments(dataset: Any, descriptor: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Expand a segmented palette (C.7.9.2), which pydicom does while it looks something up."""
    if len(descriptor) < 3 or not all(find_values(dataset, f"Segmented{colour}{_PALETTE}Data") for colour in _COLOURS):
        return np.empty(0, np.uint16)
    for colour in _COLOURS:
        dataset.pop(f"{colour}{_PALETTE}Data", None)  # pydicom would prefer it, even if it is empty
    n_entries = int(descriptor[0]) or 2**16
    first = int(find_numbers(dataset, f"Red{_PALETTE}Descriptor")[1])
    places = np.arange(first, first + n_entries)
    colours: NDArray[Any] = load_pydicom().pixels.apply_color_lut(places, dataset)
    return colours[:, :3].astype(np.uint16)
