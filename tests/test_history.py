"""Whatever happens to a data folder, a store that is brought up to date equals one that is made anew."""

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cheap
import numpy as np
import PIL.Image
import pytest
from conftest import reported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.store import FeatureStore
from featurize.pipeline import make_features

SPLITS = ("train", "valid")
EVENTS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(SPLITS), st.integers(0, 9)),
    st.tuples(st.just("copy"), st.integers(0, 99), st.sampled_from(SPLITS)),
    st.tuples(st.just("remove"), st.integers(0, 99)),
    st.tuples(st.just("rename"), st.integers(0, 99), st.sampled_from(SPLITS)),
    st.tuples(st.just("change"), st.integers(0, 99), st.integers(0, 9)),
    st.tuples(st.just("damage"), st.integers(0, 99)),
    st.tuples(st.just("make")),
    st.tuples(st.just("kill"), st.integers(1, 8)),
)


class Killed(BaseException):
    """Stands for a kill: nothing that handles errors may catch it."""


def picture(shade: int) -> bytes:
    """An image; there are ten, so that many files are alike."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8), 20 * shade, np.uint8)).save(file, "PNG")
    return file.getvalue()


def files(data: Path) -> list[Path]:
    """The images without the two that always stay: a split that vanishes is refused."""
    return sorted(path for split in SPLITS for path in (data / split).iterdir() if not path.stem.startswith("stays"))


def happen(place: Path, number: int, event: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one thing happen."""
    kind, data = event[0], place / "data"
    if kind == "add":
        (data / event[1] / f"n{number}.png").write_bytes(picture(event[2]))
    elif kind == "make":
        make(place, "s.h5")
    elif kind == "kill":
        replace, count = os.replace, [0]

        def die(*args: Any) -> None:
            count[0] += 1
            if count[0] == event[1]:
                raise Killed
            replace(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", die)
            with contextlib.suppress(Killed):
                make(place, "s.h5")
    elif existing := files(data):
        path = existing[event[1] % len(existing)]
        if kind == "remove":
            path.unlink()
        elif kind == "rename":
            path.rename(data / event[2] / f"n{number}.png")
        elif kind == "copy":
            shutil.copy(path, data / event[2] / f"n{number}.png")
        elif kind == "change":
            path.write_bytes(picture(event[2]))
        elif kind == "damage":
            path.write_bytes(path.read_bytes()[:40])


def make(place: Path, store: str) -> FeatureStore:
    with reported():
        return make_features(place / "data", place / store, **cheap.GIVEN)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=14))
def test_any_history_ends_equal_to_a_fresh_build(
    events: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        place = Path(folder)
        cheap.install(patch.setattr, cheap.CheapEngine(batch=2))
        for number, split in enumerate(SPLITS):
            (place / "data" / split).mkdir(parents=True)
            (place / "data" / split / f"stays{number}.png").write_bytes(picture(10 + number))
        for number, event in enumerate(events):
            happen(place, number, event, patch)
        updated, fresh = make(place, "s.h5"), make(place, "fresh.h5")
        assert updated.content == fresh.content
        assert updated.splits.keys() == fresh.splits.keys()
        for name, split in fresh.splits.items():
            assert updated.split(name).ids == split.ids
            assert updated.split(name).embeddings.tobytes() == split.embeddings.tobytes()
            assert updated.split(name).rows.reasons == split.rows.reasons
        assert not list(place.glob("*.parts"))
