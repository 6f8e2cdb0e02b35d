"""Names of splits, as folders and label files have them."""

import re

SPLITS = ("train", "valid", "test")

SPLIT_PATTERNS = {"train": "train(?:ing)?", "valid": "val(?:id(?:ation)?)?", "test": "test(?:ing)?"}
"""What each split is called in the names of folders and files. ``dev`` is missing: it is train and valid in some data
sets, and valid in others."""

_FOLDERS = {
    split: re.compile(rf"(?:images?[ _-]*)?{pattern}(?:[ _-]*(?:images?|imgs?|set))?", re.IGNORECASE)
    for split, pattern in SPLIT_PATTERNS.items()
}


def find_split(folder: str) -> str | None:
    """The split that a folder holds by its name; None if its name is another.

    >>> find_split("train"), find_split("Validation"), find_split("test_images"), find_split("dev")
    ('train', 'valid', 'test', None)
    """
    return next((split for split, pattern in _FOLDERS.items() if pattern.fullmatch(folder)), None)
