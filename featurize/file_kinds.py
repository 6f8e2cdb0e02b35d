"""What a file is that was given as weights, by its content: its name says little, above all after a failed download."""

import zipfile
from pathlib import Path

import h5py

from cache.support.machine_faults import is_fault_of_machine
from cache.support.messages import describe_error, quote, some

HEAD_BYTES = 4096
"""Bytes of the beginning that decide."""

BEGINNINGS = {
    b"version https://git-lfs.github.com": "a Git LFS pointer, not the file itself: run `git lfs pull` in its folder",
    b"/annex/objects/": "a git-annex pointer, not the file itself: run `git annex get` on it",
    b"<!doctype html": "an HTML page, most likely of a failed download: download the file again",
    b"<html": "an HTML page, most likely of a failed download: download the file again",
    b"<": "an XML text, such as the error message of a server: download the file again",
    b"{": "a JSON text, which has no weights",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"bzh": "a bzip2 archive: unpack it",
    b"\xfd7zxz": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it",
    b"rar!": "a RAR archive: unpack it",
    b"\x93numpy": "a NumPy array, not the weights of a network",
}
"""How files begin, white space left out and in lower case, and what they are."""

PYTORCH = "a PyTorch file, expected Keras: convert the weights, or use those that the network's authors give for Keras"
PICKLE = "a Python pickle, which is never opened because it can run code: save the weights with Keras"
TENSORFLOW = "a TensorFlow SavedModel, expected Keras: load it where it was made, and save its weights with Keras"
CHECKPOINT = "a TensorFlow checkpoint, expected Keras: load it into its network, and save that with model.save_weights"
OTHERS = {b"TFL3": "a TensorFlow Lite model, expected the weights of the Keras network it was made from"}

WEIGHTS = "model.weights.h5"
"""The member of a ``.keras`` archive with the weights."""


def is_archive(path: Path) -> bool:
    """Whether a file is a ``.keras`` archive; `describe_other_kind` has reasons if it is not."""
    return zipfile.is_zipfile(path) and not h5py.is_hdf5(path)


def describe_other_kind(path: Path) -> str:
    """What a path is if it is neither an HDF5 file nor a ``.keras`` archive, and what to do; else an empty text."""
    if path.is_dir():
        return _describe_folder(path)
    if path.with_name(path.name + ".index").is_file() and not path.exists():
        return CHECKPOINT
    if not path.is_file() or h5py.is_hdf5(path):
        return ""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "an empty file: download or copy it again"
    if head.startswith(b"PK"):
        return _describe_archive(path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, kind in BEGINNINGS.items():
        if start.startswith(beginning):
            return kind
    return _describe_binary(head)


def _describe_folder(path: Path) -> str:
    """What a folder is."""
    if (path / "saved_model.pb").is_file():
        return TENSORFLOW
    if (path / WEIGHTS).is_file():
        return f"an unpacked .keras archive: name {path / WEIGHTS}"
    return "a folder: name the file in it"


def _describe_archive(path: Path) -> str:
    """What a zip archive is; an empty text if it is one of Keras."""
    if not zipfile.is_zipfile(path):
        return "a truncated zip or .keras archive: copy or download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # damage shows itself in many ways
        if is_fault_of_machine(error):
            raise
        return f"a damaged zip or .keras archive ({describe_error(error)[:100]}): copy or download it again"
    if WEIGHTS in names:
        return ""
    if any(name.endswith("data.pkl") for name in names):
        return PYTORCH
    if any(name.endswith("saved_model.pb") for name in names):
        return TENSORFLOW
    return f"a zip archive of {some([quote(name) for name in names]) or 'nothing'}: unpack it and name the file in it"


def _describe_binary(head: bytes) -> str:
    """What a file is that is no text and no archive."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        # A file of torch.save before version 1.6 begins with a pickled number of PyTorch.
        is_pytorch = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:32] or b"torch" in head
        return PYTORCH if is_pytorch else PICKLE
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    if head[4:8] in OTHERS:
        return OTHERS[head[4:8]]
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 10**8:
        return "a safetensors file, expected Keras: convert the weights"
    if head[:2] == b"\x08\x01":
        return TENSORFLOW
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        return "an ONNX model, expected Keras: use the weights that the network's authors give for Keras"
    return f"neither an HDF5 file nor a .keras archive (it begins with {head[:12]!r}): download or copy it again"
