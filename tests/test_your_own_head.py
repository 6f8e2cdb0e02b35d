"""The head and the decoder of docs/your-own-head.md work as they stand there."""

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from conftest import ROOT

from heads.registry import make_decoder


def example(name: str) -> Any:
    """A class from the blocks of code of the page."""
    text = (ROOT / "docs" / "your-own-head.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if f"class {name}(" in block]
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
