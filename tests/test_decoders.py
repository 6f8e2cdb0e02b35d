"""Decoders: which concepts a score names."""

import json
from functools import cache
from itertools import product

import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache.support.errors import UserError
from heads.decoders.expected_f1 import ExpectedF1, expected_f1
from heads.decoders.threshold_search import Candidates
from heads.decoders.thresholds import ConceptThresholds, FixedThreshold, GlobalThreshold, climb
from heads.decoders.top_k import TopK
from heads.registry import DECODERS, make_decoder


def mean_f1(named: np.ndarray, Y: np.ndarray) -> float:
    return float(np.mean(2 * (named * Y).sum(1) / (named.sum(1) + Y.sum(1))))


def drawn(n_images: int = 60, n_concepts: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    Y = random.random((n_images, n_concepts)) < 0.2
    Y[np.arange(n_images), random.integers(0, n_concepts, n_images)] = True
    scores = np.clip(0.5 * Y + random.normal(0.2, 0.2, Y.shape), 0, 1).astype(np.float32)
    return np.round(scores, 2), Y.astype(int)  # rounded, so that many scores are equal


def test_a_fixed_threshold_names_what_reaches_it() -> None:
    scores = np.array([[0.3, 0.29, 0.9], [0.5, 0.3, 0.1]], np.float32)
    decoder = FixedThreshold(0.3).fit(scores, scipy.sparse.csr_matrix((2, 3)))
    assert decoder.predict(scores).toarray().tolist() == [[1, 0, 1], [1, 1, 0]]


def test_an_image_gets_its_likeliest_concept_where_none_reaches_the_threshold() -> None:
    scores = np.array([[0.1, 0.2, 0.05]], np.float32)
    decoder = FixedThreshold(0.9).fit(scores, scipy.sparse.csr_matrix((1, 3)))
    assert decoder.predict(scores).toarray().tolist() == [[0, 1, 0]]


def test_no_more_concepts_are_named_than_the_task_allows() -> None:
    scores = np.linspace(0, 1, 250, dtype=np.float32)[None]
    decoder = FixedThreshold(0.1).fit(scores, scipy.sparse.csr_matrix((1, 250)))
    assert np.flatnonzero(decoder.predict(scores).toarray()[0]).tolist() == list(range(150, 250))


def test_predicting_leaves_the_scores_alone() -> None:
    scores, Y = drawn()
    before = scores.copy()
    GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores)
    np.testing.assert_array_equal(scores, before)


def test_the_global_threshold_is_the_best_of_all() -> None:
    scores, Y = drawn()
    decoder = GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y))
    reached = mean_f1(decoder.predict(scores).toarray(), Y)
    tried = []
    for threshold in [0.0, *np.unique(scores)]:
        fixed = FixedThreshold(float(threshold)).fit(scores, scipy.sparse.csr_matrix(Y))
        tried.append(mean_f1(fixed.predict(scores).toarray(), Y))
    assert reached == pytest.approx(max(tried), abs=1e-12)
    assert max(tried) > min(tried)


def test_concepts_without_a_column_weigh_in_the_tuning() -> None:
    scores, Y = drawn()
    n_true = Y.sum(axis=1) + np.random.default_rng(1).integers(0, 6, len(Y))
    decoder = GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y), n_true)

    def official(threshold: float) -> float:
        fixed = FixedThreshold(threshold).fit(scores, scipy.sparse.csr_matrix(Y))
        named = fixed.predict(scores).toarray()
        return float(np.mean(2 * (named * Y).sum(1) / (named.sum(1) + n_true)))

    best = max(official(float(threshold)) for threshold in [0.0, *np.unique(scores)])
    assert official(decoder.threshold_) == pytest.approx(best, abs=1e-12)
    plain = GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y))
    assert official(plain.threshold_) < best


@cache
def all_sets(n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Every set of some concepts, a row each, and the F1 of each set (row) for each truth (column)."""
    sets = np.array(list(product((0, 1), repeat=n_concepts)), np.float64)
    sizes = sets.sum(axis=1)
    # Nothing named where nothing is shown scores 1, as the evaluator has it.
    f1 = (2 * sets @ sets.T) / np.maximum(sizes[:, None] + sizes, 1)
    f1[0, 0] = 1
    return sets, f1


def brute_force(p: np.ndarray) -> np.ndarray:
    """Expected F1 of every set, over every possible truth."""
    sets, f1 = all_sets(len(p))
    return f1 @ np.where(sets > 0, p, 1 - p).prod(axis=1)


@given(p=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12), may_be_empty=st.booleans())
@example(p=[0.5] * 12, may_be_empty=True)
@example(p=[1.0, 0.0, 1e-6, 0.999] * 3, may_be_empty=False)
@settings(deadline=None, max_examples=80)
def test_the_set_of_greatest_expected_f1_is_the_best_of_all_sets(p: list[float], may_be_empty: bool) -> None:
    scores = np.array([p], np.float32)
    decoder = ExpectedF1(may_be_empty).fit(scores, scipy.sparse.csr_matrix(scores.shape))
    named = decoder.predict(scores).toarray()[0]
    expected = brute_force(scores[0].astype(float))
    reached = expected[int("".join(map(str, named)), 2)]
    assert named.any() or may_be_empty
    assert reached == pytest.approx(expected[0 if may_be_empty else 1 :].max(), abs=1e-9)


def test_expected_f1_is_that_of_brute_force_for_twelve_concepts() -> None:
    p = np.sort(np.random.default_rng(0).beta(0.5, 1.5, 12))[::-1]
    f1 = expected_f1(p[None], np.zeros(1))[0]
    for size in range(1, 13):
        first = int("1" * size + "0" * (12 - size), 2)
        assert f1[size - 1] == pytest.approx(brute_force(p)[first], abs=1e-12)
    few = expected_f1(p[None, :7], np.zeros(1))[0]
    folded = expected_f1(p[None, :7], p[None, 7:].sum(axis=1))[0]
    exact = f1[:7]
    assert np.abs(folded - exact).max() < 0.25 * np.abs(few - exact).max()  # folding in is no mere leaving out


def test_the_tail_of_unlikely_concepts_counts() -> None:
    random = np.random.default_rng(0)
    p = np.sort(np.append(random.uniform(0.2, 0.9, 6), np.full(1500, 0.002)))[::-1]
    truth = random.random((200_000, 6)) < p[:6]
    others = random.poisson(3.0, 200_000)
    drawn = 2 * truth[:, :4].sum(axis=1) / (4 + truth.sum(axis=1) + others)
    assert expected_f1(p[None, :6], np.array([3.0]))[0, 3] == pytest.approx(drawn.mean(), abs=2e-3)


def test_large_sets_are_found_too() -> None:
    scores = np.full((1, 150), 0.95, np.float32)
    assert ExpectedF1().fit(scores, scipy.sparse.csr_matrix(scores.shape)).predict(scores).nnz == 100


def test_thresholds_of_concepts_are_no_worse_than_one_for_all_where_they_were_fitted() -> None:
    scores, Y = drawn(400)
    scores[:, :4] *= 0.4  # some concepts are underrated
    one = mean_f1(GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores).toarray(), Y)
    decoder = ConceptThresholds().fit(scores, scipy.sparse.csr_matrix(Y))
    assert mean_f1(decoder.predict(scores).toarray(), Y) > one + 0.02
    assert decoder.held_out_f1_ > one + 0.01
    assert (decoder.threshold_[:4] < decoder.threshold_[4:].min()).all()


def test_thresholds_of_concepts_promise_no_more_than_they_keep() -> None:
    random = np.random.default_rng(1)

    def draw(n_images: int) -> tuple[np.ndarray, np.ndarray]:
        p = np.broadcast_to(random.beta(1, 4, (n_images, 60)).mean(axis=1, keepdims=True), (n_images, 60))
        Y = random.random(p.shape) < p
        Y[:, 0] = True
        return np.clip(p + random.normal(0, 0.05, p.shape), 0, 1).astype(np.float32), Y.astype(int)

    scores, Y = draw(100)
    decoder = ConceptThresholds().fit(scores, scipy.sparse.csr_matrix(Y))
    own = climb(Candidates.of(scores, scipy.sparse.csr_matrix(Y), None, 0.02, may_be_empty=False), 0.2)
    greedy = FixedThreshold().set_state({"threshold": own.tolist()})
    fresh, truth = draw(4000)
    kept = mean_f1(decoder.predict(fresh).toarray(), truth)
    assert decoder.held_out_f1_ == pytest.approx(kept, abs=0.02)
    assert mean_f1(greedy.predict(scores).toarray(), Y) > decoder.held_out_f1_ + 0.03  # what the climb alone promises
    assert kept >= mean_f1(greedy.predict(fresh).toarray(), truth)


def test_no_change_of_one_threshold_betters_those_of_the_ascent() -> None:
    scores, Y = drawn(80, 6)
    images = Candidates.of(scores, scipy.sparse.csr_matrix(Y), None, 0.02, may_be_empty=False)
    thresholds = climb(images, 0.5)
    reached = images.f1(thresholds).mean()
    for concept in range(6):
        for threshold in np.append(np.unique(scores[:, concept]), 2.0):
            other = thresholds.copy()
            other[concept] = threshold
            assert images.f1(other).mean() <= reached + 1e-12


def test_f1_of_candidates_is_that_of_the_decoder() -> None:
    scores, Y = drawn(80, 6)
    thresholds = np.random.default_rng(0).uniform(0.3, 0.9, 6)
    decoder = FixedThreshold().set_state({"threshold": thresholds.tolist()})
    for may_be_empty in (False, True):
        decoder.may_be_empty = may_be_empty
        images = Candidates.of(scores, scipy.sparse.csr_matrix(Y), None, 0.1, may_be_empty)
        named = decoder.predict(scores).toarray()
        assert images.f1(thresholds).mean() == pytest.approx(mean_f1(named, Y) if not may_be_empty else np.mean(
            2 * (named * Y).sum(1) / np.maximum(named.sum(1) + Y.sum(1), 1)))  # fmt: skip


def test_the_number_of_concepts_is_the_best_of_all() -> None:
    scores, Y = drawn()
    decoder = TopK().fit(scores, scipy.sparse.csr_matrix(Y))
    tried = [
        mean_f1(TopK(k).fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores).toarray(), Y) for k in range(1, 13)
    ]
    assert decoder.k_ == int(np.argmax(tried)) + 1
    assert decoder.predict(scores).sum(axis=1).max() == decoder.k_


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_comes_back_from_what_is_saved(name: str) -> None:
    scores, Y = drawn()
    decoder = make_decoder(name).fit(scores, scipy.sparse.csr_matrix(Y))
    again = make_decoder(name).set_state(json.loads(json.dumps(decoder.get_state())))
    assert (decoder.predict(scores) != again.predict(scores)).nnz == 0
    assert again.report() == decoder.report()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("empty", ["", ",empty"])
def test_only_a_decoder_that_may_names_nothing(name: str, empty: str) -> None:
    scores = np.full((3, 4), 1e-4, np.float32)
    decoder = make_decoder(name + empty)
    fit_scores, Y = drawn(60, 4)
    decoder.fit(fit_scores, scipy.sparse.csr_matrix(Y))
    named = decoder.predict(scores).sum()
    assert named == 0 if empty and name != "top-k" else named >= 3


@pytest.mark.parametrize("name", DECODERS)
def test_no_image_and_one_image_can_be_decoded(name: str) -> None:
    scores, Y = drawn(1)
    decoder = make_decoder(name).fit(scores, scipy.sparse.csr_matrix(Y))
    assert decoder.predict(scores).shape == (1, 12)
    assert decoder.predict(scores[:0]).shape == (0, 12)


def test_only_the_tuned_decoder_says_that_it_looks_at_labels() -> None:
    assert not make_decoder("fixed:0.5").tuned
    assert make_decoder("global").tuned


def test_a_decoder_is_made_from_its_name_and_value() -> None:
    assert make_decoder("fixed").get_params() == {"threshold": 0.3, "may_be_empty": False}
    assert make_decoder("fixed:0.5,empty").get_params() == {"threshold": 0.5, "may_be_empty": True}
    assert make_decoder("top-k:4").get_params() == {"k": 4, "may_be_empty": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "no decoder 'best'; there are fixed, global, per-concept, top-k, expected-f1"),
        ("top-k:0", "expected a number from 1 to 100"),
        ("global,none", "expected nothing or 'empty' after the comma"),
        ("global,empty,empty", "expected nothing or 'empty' after the comma"),
        ("fixed:high", "decoder 'fixed:high': expected a threshold from 0 to 1"),
        ("fixed:1.5", "expected a threshold from 0 to 1"),
        ("fixed:nan", "expected a threshold from 0 to 1"),
        ("global:0.3", "decoder 'global:0.3': it takes no value, found '0.3'"),
    ],
)
def test_a_decoder_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_decoder(text)
