"""A stranger's file executes nothing, reads nothing outside itself, and takes no memory that it only declares."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import RECORD, ROOT, make_store

from cache.store import FeatureStore
from cache.support.errors import StoreError


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["embeddings"] = np.ones((2, 2), np.float32)
    del file["splits/train/embeddings"]
    file["splits/train/embeddings"] = h5py.ExternalLink(folder / "secret.h5", "embeddings")


def external_group(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other.create_group("train")
    file["splits/other"] = h5py.ExternalLink(folder / "secret.h5", "train")


def soft_link(file: h5py.File, folder: Path) -> None:
    file.move("splits/train/ids", "ids")
    file["splits/train/ids"] = h5py.SoftLink("/ids")


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret.raw").write_bytes(bytes(16))
    del file["splits/train/embeddings"]
    file.create_dataset("splits/train/embeddings", (2, 2), np.float32, external=[(str(folder / "secret.raw"), 0, 16)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.h5", "w") as other:
        other["x"] = np.ones((2, 2), np.float32)
    layout = h5py.VirtualLayout((2, 2), np.float32)
    layout[:] = h5py.VirtualSource(folder / "secret.h5", "x", (2, 2))
    del file["splits/train/embeddings"]
    file.create_virtual_dataset("splits/train/embeddings", layout)


def huge_and_compressed(file: h5py.File, folder: Path) -> None:
    for name in ("embeddings", "digests", "status", "ids"):
        del file[f"splits/train/{name}"]
    rows = 2**33
    for name, shape, dtype in (
        ("embeddings", (rows, 4), "f4"),
        ("digests", (rows, 32), "u1"),
        ("status", (rows,), "u1"),
        ("ids", (rows,), "S8"),
    ):
        file.create_dataset(f"splits/train/{name}", shape, dtype, chunks=True, compression="gzip")


def huge_and_unallocated(file: h5py.File, folder: Path) -> None:
    del file["splits/train/ids"]
    file.create_dataset("splits/train/ids", (2**40,), "S8")


def objects(file: h5py.File, folder: Path) -> None:
    del file["splits/train/ids"]
    file.create_dataset("splits/train/ids", data=["a", "b"], dtype=h5py.string_dtype())


def wrong_type(file: h5py.File, folder: Path) -> None:
    del file["splits/train/embeddings"]
    file["splits/train/embeddings"] = np.ones((2, 2), np.int32)


def wrong_shape(file: h5py.File, folder: Path) -> None:
    del file["splits/train/digests"]
    file["splits/train/digests"] = np.ones((2, 16), np.uint8)


def other_precision(file: h5py.File, folder: Path) -> None:
    del file["splits/train/embeddings"]
    file["splits/train/embeddings"] = np.ones((2, 2), np.float64)


def repeated_ids(file: h5py.File, folder: Path) -> None:
    file["splits/train/ids"][:] = [b"a", b"a"]


def a_reason_for_no_row(file: h5py.File, folder: Path) -> None:
    for name, value in (("reason_rows", np.array([7])), ("reasons", np.array([b"why"]))):
        del file[f"splits/train/{name}"]
        file[f"splits/train/{name}"] = value


def facts_that_are_none(file: h5py.File, folder: Path) -> None:
    del file["provenance"]
    file["provenance"] = np.frombuffer(b"__import__('os').system('touch executed')", np.uint8)


def facts_of_other_kinds(file: h5py.File, folder: Path) -> None:
    facts = json.loads(file["provenance"][:].tobytes()) | {"backbone": 5}
    del file["provenance"]
    file["provenance"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)


def a_record_of_nothing(file: h5py.File, folder: Path) -> None:
    del file["record"]
    file["record"] = np.frombuffer(b"{}", np.uint8)


def a_record_of_other_types(file: h5py.File, folder: Path) -> None:
    del file["record"]
    file["record"] = np.frombuffer(json.dumps(RECORD | {"asked": {"weights": 1, "layer": ""}}).encode(), np.uint8)


def a_record_that_is_nested(file: h5py.File, folder: Path) -> None:
    del file["record"]
    file["record"] = np.frombuffer(b'{"asked":' * 100_000, np.uint8)


def facts_that_are_nested(file: h5py.File, folder: Path) -> None:
    del file["provenance"]
    file["provenance"] = np.frombuffer(b"[" * 100_000, np.uint8)


def text_of_variable_length(file: h5py.File, folder: Path) -> None:
    del file["record"]
    file.create_dataset("record", data=["x" * 1000], dtype=h5py.string_dtype())


def no_split(file: h5py.File, folder: Path) -> None:
    del file["splits/train"]


def splits_of_two_widths(file: h5py.File, folder: Path) -> None:
    file.copy("splits/train", "splits/test")
    del file["splits/test/embeddings"]
    file["splits/test/embeddings"] = np.ones((2, 3), np.float32)


def an_id_that_commands_the_terminal(file: h5py.File, folder: Path) -> None:
    del file["splits/train/ids"]
    file["splits/train/ids"] = np.array([b"a\n\x1b[2J", b"b"])


def group_for_data(file: h5py.File, folder: Path) -> None:
    del file["splits/train/status"]
    file.create_group("splits/train/status")


@pytest.mark.parametrize(
    "damage",
    [external_link, external_group, soft_link, external_storage, virtual, huge_and_compressed, huge_and_unallocated,
     text_of_variable_length, facts_of_other_kinds, facts_that_are_nested, a_record_of_nothing, a_record_of_other_types,
     a_record_that_is_nested, no_split, splits_of_two_widths,
     an_id_that_commands_the_terminal, objects, wrong_type, wrong_shape, other_precision, repeated_ids, a_reason_for_no_row, facts_that_are_none,
     group_for_data],
)  # fmt: skip
def test_what_a_store_never_has_is_refused(tmp_path: Path, damage: Callable[[h5py.File, Path], None]) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    with h5py.File(path, "a") as file:
        damage(file, tmp_path)
    with pytest.raises(StoreError, match="not a finished feature store") as caught:
        FeatureStore(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", [huge_and_compressed, huge_and_unallocated])
def test_a_huge_declared_shape_takes_no_memory(tmp_path: Path, damage: Callable[[h5py.File, Path], None]) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2), "b": np.ones(2)}})
    with h5py.File(path, "a") as file:
        damage(file, tmp_path)
    # The shell sets the limit: a `preexec_fn` may wait forever for a lock that another thread held at the fork.
    limited = ["sh", "-c", f'ulimit -v {2 * 1024**2} && exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, sys.executable, "-m", "cache", "status", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("cache: error: ")
    assert "not a finished feature store" in done.stderr


def test_a_read_only_store_opens_and_many_times_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    make_store(path, {"train": {"a": np.ones(2)}})
    path.chmod(0o444)
    stores = [FeatureStore(path) for _ in range(3)]
    assert [store.split("train").ids for store in stores] == [["a"]] * 3
