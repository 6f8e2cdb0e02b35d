"""Concepts that exclude each other are not named together, where that helps on images that were held out."""

import json

import numpy as np
import pytest
import scipy.sparse

from heads.decoders.base import make_decoder
from heads.decoders.exclusive import Exclusive, find_pairs, take_out
from heads.decoders.thresholds import FixedThreshold


def draw(n_images: int = 400, together: int = 0) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """Two modalities, of which each image shows one, and three findings; `together` images show both."""
    random = np.random.default_rng(0)
    Y = random.random((n_images, 5)) < 0.3
    Y[:, 0] = random.random(n_images) < 0.5
    Y[:, 1] = ~Y[:, 0]
    Y[:together, :2] = True
    scores = np.clip(0.4 * Y + random.normal(0.3, 0.15, Y.shape), 0, 1).astype(np.float32)
    return scores, scipy.sparse.csr_matrix(Y.astype(np.int8))


def test_modalities_exclude_each_other_and_findings_do_not() -> None:
    assert find_pairs(draw()[1]).tolist() == [[0, 1]]


def test_a_few_wrong_labels_do_not_hide_a_pair_and_many_do() -> None:
    assert find_pairs(draw(together=4)[1]).tolist() == [[0, 1]]
    assert find_pairs(draw(together=40)[1]).tolist() == []


def test_rare_concepts_that_never_meet_exclude_nothing() -> None:
    Y = np.zeros((100, 2), np.int8)
    Y[:20, 0] = Y[20:40, 1] = 1  # four images would show both by chance
    assert find_pairs(scipy.sparse.csr_matrix(Y)).tolist() == []


def test_the_more_probable_stays_and_what_only_the_less_probable_excluded_too() -> None:
    named = scipy.sparse.csr_matrix(np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], np.int8))
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.9, 0.6, 0.7]], np.float32)
    fewer = take_out(named, scores, np.array([[0, 1], [1, 2]]))
    assert fewer.toarray().tolist() == [[1, 0, 1], [1, 0, 1], [0, 0, 1]]
    assert named.toarray().tolist() == [[1, 1, 1], [1, 0, 1], [0, 1, 1]]


def test_pairs_are_kept_where_they_gain_on_held_out_images() -> None:
    scores, Y = draw()
    decoder = make_decoder("fixed:0.4,exclusive").fit(scores, Y)
    named = decoder.predict(scores).toarray()
    assert (named[:, :2].sum(axis=1) <= 1).all()
    assert named.sum(axis=1).min() >= 1
    assert decoder.report()["exclusive"] == {"pairs": 1, "gain": pytest.approx(decoder.gain_), "kept": True}
    assert decoder.gain_ > 0.01


def test_pairs_that_gain_nothing_change_nothing() -> None:
    scores, Y = draw()
    scores[:, :2] = np.random.default_rng(1).random((400, 2), np.float32)  # which of the two, nobody knows
    plain = make_decoder("fixed:0.1").fit(scores, Y)
    decoder = make_decoder("fixed:0.1,exclusive").fit(scores, Y)
    assert decoder.report()["exclusive"]["kept"] is False
    assert decoder.n_found_ == 1
    assert decoder.gain_ < 0
    assert (decoder.predict(scores) != plain.predict(scores)).nnz == 0


def test_it_stands_with_other_options_and_calibrations() -> None:
    scores, Y = draw()
    decoder = make_decoder("platt+global,empty,exclusive").fit(scores, Y)
    again = make_decoder("platt+global,empty,exclusive").set_state(json.loads(json.dumps(decoder.get_state())))
    assert (decoder.predict(scores) != again.predict(scores)).nnz == 0
    assert again.report() == decoder.report()
    assert decoder.decoder.decoder.may_be_empty


def test_groups_are_held_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, Y = draw(60)
    groups, fitted = np.repeat(np.arange(6), 10), []
    fit = FixedThreshold.fit
    monkeypatch.setattr(FixedThreshold, "fit", lambda self, *args: fitted.append(args[3]) or fit(self, *args))
    Exclusive(FixedThreshold(0.4)).fit(scores, Y, None, groups)
    assert len(fitted) == 1 + 5
    assert all(len(each) in (40, 50) and set(np.bincount(each)) <= {0, 10} for each in fitted[1:])
