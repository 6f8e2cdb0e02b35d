"""The head and the decoder of docs/your-own-head.md work as they stand there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import make_store, reported
from pages import code_blocks

from cache.support.errors import ParameterError, RunError
from heads.estimators.base import Head
from heads.registry import DECODERS, HEADS, make_decoder, make_head
from heads.runs.builder import fit_run


def example(name: str) -> Any:
    """A class from the blocks of code of the page."""
    (block,) = [block for block in code_blocks("docs/your-own-head.md", "python") if f"class {name}(" in block]
    names: dict[str, Any] = {"__name__": "heads.example"}
    exec(block, names)
    return names[name]


def test_the_head_of_the_page_tells_clusters_apart_and_is_saved_whole() -> None:
    random = np.random.default_rng(0)
    Y = np.eye(3, dtype=int)[random.integers(0, 3, 90)]
    X = Y @ np.eye(3, 8) * 3 + random.normal(size=(90, 8))
    head = example("CentroidHead")(sharpness=8.0).fit(X, Y)
    scores = head.predict_proba(X)
    assert (scores.argmax(axis=1) == Y.argmax(axis=1)).mean() > 0.9
    restored = example("CentroidHead")(sharpness=8.0).set_state(head.get_state(), 8, 3)
    np.testing.assert_array_equal(restored.predict_proba(X), scores)


def test_the_decoder_of_the_page_reads_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RelativeThreshold", example("RelativeThreshold"))
    monkeypatch.setitem(make_decoder.__globals__["DECODERS"], "relative", f"{__name__}:RelativeThreshold")
    scores = np.array([[0.9, 0.5, 0.3], [0.2, 0.1, 0.24]], np.float32)
    Y = scipy.sparse.csr_matrix(scores > 0.4, dtype=np.int8)
    predicted = make_decoder("relative:0.5").fit(scores, Y).predict(scores)
    assert predicted.toarray().tolist() == [[1, 1, 0], [0, 0, 1]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small data folder and its store; the head of the page and its decoder are in the registry."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    splits = {}
    for split, n_images in (("train", 30), ("valid", 10)):
        splits[split] = {f"{split}_{number}": random.normal(size=4) for number in range(n_images)}
        rows = "".join(f"{id},C{1 + int(row[0] > 0)}\n" for id, row in splits[split].items())
        (tmp_path / "data" / f"{split}_concepts.csv").write_text("ID,CUIs\n" + rows)
    make_store(tmp_path / "s.h5", splits)
    for registry, name, kind in ((HEADS, "centroid", "CentroidHead"), (DECODERS, "relative", "RelativeThreshold")):
        monkeypatch.setitem(globals(), kind, example(kind))
        monkeypatch.setitem(registry, name, f"{__name__}:{kind}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit() -> None:
    with reported():
        fit_run("centroid", "s.h5", "data", "run", decoder="relative:0.5")


def test_the_head_and_the_decoder_of_the_page_make_a_run(place: Path) -> None:
    fit()
    assert (place / "run" / "digests.json").exists()


def wrong(*args: object) -> Any:
    raise KeyError("rate")


def text_state(self: Any) -> dict[str, Any]:
    return {"rate": np.array(["text"])}


def restore_too_little(self: Any, state: Any) -> None:
    Head._restore(self, state)
    self.rate_ = np.full_like(self.rate_, 0.5)


@pytest.mark.parametrize(
    ("kind", "method", "broken", "message"),
    [
        ("CentroidHead", "get_state", wrong, "cannot be saved and loaded: get_state fails (KeyError: 'rate')"),
        ("CentroidHead", "get_state", text_state, "get_state fails (TypeError: 'rate' is no array of numbers)"),
        ("CentroidHead", "_restore", wrong, "set_state (_restore) fails (KeyError: 'rate')"),
        ("CentroidHead", "_restore", lambda *args: None, "predict_proba after set_state (_restore) fails (AttributeErr"),
        ("CentroidHead", "_restore", restore_too_little, "scores otherwise once it is saved and loaded; get_state or"),
        ("RelativeThreshold", "get_state", wrong, "cannot be saved and loaded: get_state fails (KeyError: 'rate')"),
        ("RelativeThreshold", "set_state", wrong, "set_state fails (KeyError: 'rate')"),
        ("RelativeThreshold", "set_state", lambda self, state: self, "predict after set_state fails (NotFittedError"),
    ],
)  # fmt: skip
def test_what_cannot_be_saved_and_loaded_is_refused_by_make_head(
    place: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str, broken: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(globals()[kind], method, broken)
    with pytest.raises(RunError, match=re.escape(message)) as refused:
        fit()
    assert str(refused.value).startswith("head 'centroid': " if "Head" in kind else "decoder 'relative:0.5': ")
    assert "\n" not in str(refused.value)
    assert not (place / "run").exists()


def test_a_class_without_a_method_is_refused_with_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Halfway(Head):
        """Has no scores yet."""

        def _fit(self, X: Any, Y: Any) -> None:
            pass

    monkeypatch.setitem(globals(), "CentroidHead", Halfway)
    with pytest.raises(ParameterError, match=r"head 'centroid': Halfway lacks _scores; see docs/your-own-head\.md"):
        make_head("centroid")
    assert make_head("ridge")
