"""A store grows without being read again and again: what is read and written, in bytes, as the system counts it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cheap
import numpy as np
import PIL.Image
import pytest
from conftest import reported

from cache.parts import find_unfinished
from cache.status import describe_store
from cache.store import FeatureStore
from featurize import pipeline as features
from featurize.pipeline import make_features

N_FEATURES = 2 * cheap.SIZE * 3 * 2000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, and a finished store with 384 KB for each of them."""
    cheap.install(monkeypatch.setattr, cheap.CheapEngine(repeat=2000))
    monkeypatch.setattr(features, "installed_versions", lambda *names: {})  # which reads megabytes of lists of files
    draw(tmp_path, range(60))
    make(tmp_path)
    return tmp_path


def draw(place: Path, numbers: range) -> None:
    for number in numbers:
        path = place / "data" / ("valid" if number % 5 == 0 else "train") / f"{number * 37 % 100:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)).save(path)


def make(place: Path) -> FeatureStore:
    with reported():
        return make_features(place / "data", place / "s.h5", workers=1, **cheap.GIVEN)


def embed_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave finished units that are in no store."""

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_store", stop)
        with pytest.raises(KeyboardInterrupt):
            make(place)


def count_bytes(action: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """What an action reads and writes, in embeddings: through files, and through the memory maps of stores."""
    n_mapped, select = [0], np.memmap.__getitem__

    def note(stored: np.memmap, rows: object) -> Any:
        found = select(stored, rows)
        n_mapped[0] += getattr(found, "nbytes", 0)
        return found

    def count() -> list[int]:
        return [int(line.split()[1]) for line in Path("/proc/self/io").read_text().splitlines()[:2]]

    with monkeypatch.context() as patch:
        patch.setattr(np.memmap, "__getitem__", note)
        before = count()
        action()
        after = count()
    n_read, n_written = (end - start for start, end in zip(before, after, strict=True))
    return (n_read + n_mapped[0]) / (4 * N_FEATURES), n_written / (4 * N_FEATURES)


@pytest.mark.parametrize("n_finished", [0, 5])
def test_ten_more_images_cost_one_read_of_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, n_finished: int
) -> None:
    if n_finished:
        draw(place, range(60, 60 + n_finished))
        embed_only(place, monkeypatch)
    draw(place, range(60, 70))
    n_read, n_written = count_bytes(lambda: make(place), monkeypatch)
    # The 60 that were there and the parts of ten are copied; the new store is read back once for its digests.
    assert n_read == pytest.approx(60 + 10 + 70, abs=3)
    # Each image is written to the store; those that were not finished, to a part before.
    assert n_written == pytest.approx(70 + 10 - n_finished, abs=3)


def test_a_status_and_a_second_run_read_no_embedding(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_read, n_written = count_bytes(lambda: make(place), monkeypatch)
    assert n_read < 1
    assert n_written < 1
    draw(place, range(60, 70))
    embed_only(place, monkeypatch)
    assert sum(len(digests) for parts in find_unfinished(place / "s.h5") for digests in parts.digests()) == 10
    assert count_bytes(lambda: describe_store(place / "s.h5", place / "data"), monkeypatch)[0] < 1
