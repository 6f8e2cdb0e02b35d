"""Decoders: which concepts are predicted from scores."""

import json
from functools import cache
from itertools import product

import numpy as np
import pytest
import scipy.sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from cache.support.errors import ParameterError
from cache.support.json_file import DamagedFileError
from heads.data.folds import split_folds
from heads.decoders.base import Decoder
from heads.decoders.expected_f1 import ExpectedF1, expected_f1
from heads.decoders.ranking import bound_sizes, most_probable, rank
from heads.decoders.threshold_search import Candidates, climb
from heads.decoders.thresholds import ConceptThresholds, FixedThreshold, GlobalThreshold
from heads.decoders.top_k import TopK
from heads.registry import DECODERS, make_decoder


def mean_f1(predicted: np.ndarray, Y: np.ndarray) -> float:
    return float(np.mean(2 * (predicted * Y).sum(1) / (predicted.sum(1) + Y.sum(1))))


def draw(n_images: int = 60, n_concepts: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    Y = random.random((n_images, n_concepts)) < 0.2
    Y[np.arange(n_images), random.integers(0, n_concepts, n_images)] = True
    scores = np.clip(0.5 * Y + random.normal(0.2, 0.2, Y.shape), 0, 1).astype(np.float32)
    return np.round(scores, 2), Y.astype(int)  # rounded, so that many scores are equal


def test_a_fixed_threshold_predicts_each_concept_that_reaches_it() -> None:
    scores = np.array([[0.3, 0.29, 0.9], [0.5, 0.3, 0.1]], np.float32)
    decoder = FixedThreshold(0.3).fit(scores, scipy.sparse.csr_matrix((2, 3)))
    assert decoder.predict(scores).toarray().tolist() == [[1, 0, 1], [1, 1, 0]]


def test_an_image_gets_its_most_probable_concept_if_none_reaches_the_threshold() -> None:
    scores = np.array([[0.1, 0.2, 0.05]], np.float32)
    decoder = FixedThreshold(0.9).fit(scores, scipy.sparse.csr_matrix((1, 3)))
    assert decoder.predict(scores).toarray().tolist() == [[0, 1, 0]]


def test_no_more_concepts_are_predicted_than_the_task_allows() -> None:
    scores = np.linspace(0, 1, 250, dtype=np.float32)[None]
    decoder = FixedThreshold(0.1).fit(scores, scipy.sparse.csr_matrix((1, 250)))
    assert np.flatnonzero(decoder.predict(scores).toarray()[0]).tolist() == list(range(150, 250))


def test_predicting_does_not_change_the_scores() -> None:
    scores, Y = draw()
    before = scores.copy()
    GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_no_threshold_is_better_than_the_global_one(may_be_empty: bool) -> None:
    scores, Y = draw()
    scores[:30] *= 0.1  # images whose only concept may be wrong at a threshold that is good for the others
    decoder = GlobalThreshold(may_be_empty).fit(scores, scipy.sparse.csr_matrix(Y))
    reached = mean_f1(decoder.predict(scores).toarray(), Y)
    tried = []
    for threshold in [0.0, *np.unique(scores)]:
        fixed = FixedThreshold(float(threshold), may_be_empty).fit(scores, scipy.sparse.csr_matrix(Y))
        tried.append(mean_f1(fixed.predict(scores).toarray(), Y))
    assert reached == pytest.approx(max(tried), abs=1e-12)
    assert max(tried) > min(tried)


def test_true_concepts_without_a_column_count_in_the_tuning() -> None:
    scores, Y = draw()
    n_true = Y.sum(axis=1) + np.random.default_rng(1).integers(0, 6, len(Y))
    decoder = GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y), n_true)

    def official(threshold: float) -> float:
        fixed = FixedThreshold(threshold).fit(scores, scipy.sparse.csr_matrix(Y))
        predicted = fixed.predict(scores).toarray()
        return float(np.mean(2 * (predicted * Y).sum(1) / (predicted.sum(1) + n_true)))

    best = max(official(float(threshold)) for threshold in [0.0, *np.unique(scores)])
    assert official(decoder.threshold_) == pytest.approx(best, abs=1e-12)
    plain = GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y))
    assert official(plain.threshold_) < best


@cache
def all_sets(n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Every set of some concepts, one per row, and the F1 of each set (row) for each truth (column)."""
    sets = np.array(list(product((0, 1), repeat=n_concepts)), np.float64)
    sizes = sets.sum(axis=1)
    # Predicting nothing for an image without concepts scores 1, as in the evaluator.
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
    predicted = decoder.predict(scores).toarray()[0]
    expected = brute_force(scores[0].astype(float))
    reached = expected[int("".join(map(str, predicted)), 2)]
    assert predicted.any() or may_be_empty
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
    assert np.abs(folded - exact).max() < 0.25 * np.abs(few - exact).max()  # closer than if the others were left out


def test_many_unlikely_concepts_lower_the_expected_f1_as_in_a_simulation() -> None:
    random = np.random.default_rng(0)
    p = np.sort(np.append(random.uniform(0.2, 0.9, 6), np.full(1500, 0.002)))[::-1]
    truth = random.random((200_000, 6)) < p[:6]
    others = random.poisson(3.0, 200_000)
    simulated = 2 * truth[:, :4].sum(axis=1) / (4 + truth.sum(axis=1) + others)
    assert expected_f1(p[None, :6], np.array([3.0]))[0, 3] == pytest.approx(simulated.mean(), abs=2e-3)


def test_an_image_with_many_unlikely_concepts_is_hardly_empty() -> None:
    """Though each of them alone is improbable, one of them is there."""
    scores = np.append(np.float32(0.6), np.full(600, 0.005, np.float32))[None]
    predicted = ExpectedF1(may_be_empty=True).fit(scores, scipy.sparse.csr_matrix(scores.shape)).predict(scores)
    assert predicted.indices.tolist() == [0]


def test_sets_larger_than_the_likely_concepts_are_found() -> None:
    scores = np.full((1, 150), 0.95, np.float32)
    assert ExpectedF1().fit(scores, scipy.sparse.csr_matrix(scores.shape)).predict(scores).nnz == 100


def test_one_threshold_per_concept_is_better_than_one_for_all_if_concepts_are_underrated() -> None:
    scores, Y = draw(400)
    scores[:, :4] *= 0.4  # four concepts are underrated
    one = mean_f1(GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores).toarray(), Y)
    decoder = ConceptThresholds().fit(scores, scipy.sparse.csr_matrix(Y))
    assert mean_f1(decoder.predict(scores).toarray(), Y) > one + 0.02
    assert decoder.held_out_f1_ > one + 0.01
    assert (decoder.threshold_[:4] < decoder.threshold_[4:].min()).all()


def test_the_held_out_f1_of_concept_thresholds_holds_on_new_images() -> None:
    random = np.random.default_rng(1)

    def draw_noise(n_images: int) -> tuple[np.ndarray, np.ndarray]:
        p = np.broadcast_to(random.beta(1, 4, (n_images, 60)).mean(axis=1, keepdims=True), (n_images, 60))
        Y = random.random(p.shape) < p
        Y[:, 0] = True
        return np.clip(p + random.normal(0, 0.05, p.shape), 0, 1).astype(np.float32), Y.astype(int)

    scores, Y = draw_noise(100)
    decoder = ConceptThresholds().fit(scores, scipy.sparse.csr_matrix(Y))
    own = climb(Candidates.from_arrays(scores, scipy.sparse.csr_matrix(Y), None, 0.02, may_be_empty=False), 0.2)
    greedy = FixedThreshold().set_state({"threshold": own.tolist()})
    fresh, truth = draw_noise(4000)
    on_new = mean_f1(decoder.predict(fresh).toarray(), truth)
    assert decoder.held_out_f1_ == pytest.approx(on_new, abs=0.02)
    assert mean_f1(greedy.predict(scores).toarray(), Y) > decoder.held_out_f1_ + 0.03  # the ascent alone is optimistic
    assert on_new >= mean_f1(greedy.predict(fresh).toarray(), truth)


def test_the_gain_of_concept_thresholds_is_that_over_one_threshold_on_the_same_folds() -> None:
    scores, Y = draw(400)
    scores[:, :4] *= 0.4
    sparse, groups = scipy.sparse.csr_matrix(Y), np.arange(400) % 2  # two groups are enough
    decoder = ConceptThresholds().fit(scores, sparse, groups=groups)
    one = np.zeros(400)
    for rest, held_out in split_folds(400, groups):
        predicted = GlobalThreshold().fit(scores[rest], sparse[rest]).predict(scores[held_out]).toarray()
        one[held_out] = 2 * (predicted * Y[held_out]).sum(1) / (predicted.sum(1) + Y[held_out].sum(1))
    assert decoder.gain_ == pytest.approx(decoder.held_out_f1_ - one.mean(), abs=1e-12)
    assert decoder.gain_ > 0.01


def test_the_ascent_predicts_a_concept_of_every_image_for_all_and_one_of_none_for_none() -> None:
    scores = np.float32([[0.9, 0.9, 0.3], [0.9, 0.8, 0.1], [0.9, 0.7, 0.2]])
    Y = scipy.sparse.csr_matrix([[1, 0, 1], [1, 0, 1], [1, 0, 1]])
    candidates = Candidates.from_arrays(scores, Y, None, 0.02, may_be_empty=False)
    for start in (0.15, 0.5, 0.85):
        thresholds = climb(candidates, start)
        assert candidates.f1(thresholds).tolist() == [1, 1, 1]
        assert thresholds[2] <= 0.1
        # Halfway to 1, for the score of a new image that is greater than any so far.
        assert thresholds[1] == pytest.approx(0.95, abs=1e-5) or thresholds[1] == start


@pytest.mark.parametrize("start", [0.05, 0.5, 0.95])
def test_no_change_of_a_single_threshold_improves_on_the_ascent(start: float) -> None:
    scores, Y = draw(80, 6)
    candidates = Candidates.from_arrays(scores, scipy.sparse.csr_matrix(Y), None, 0.02, may_be_empty=False)
    thresholds = climb(candidates, start)
    reached = candidates.f1(thresholds).mean()
    for concept in range(6):
        for threshold in np.append(np.unique(scores[:, concept]), 2.0):
            other = thresholds.copy()
            other[concept] = threshold
            assert candidates.f1(other).mean() <= reached + 1e-12


def test_f1_of_candidates_is_that_of_the_decoder() -> None:
    scores, Y = draw(80, 6)
    thresholds = np.random.default_rng(0).uniform(0.3, 0.9, 6)
    decoder = FixedThreshold().set_state({"threshold": thresholds.tolist()})
    for may_be_empty in (False, True):
        decoder.may_be_empty = may_be_empty
        candidates = Candidates.from_arrays(scores, scipy.sparse.csr_matrix(Y), None, 0.1, may_be_empty)
        predicted = decoder.predict(scores).toarray()
        sizes = np.maximum(predicted.sum(1) + Y.sum(1), 1)
        assert candidates.f1(thresholds).mean() == pytest.approx(np.mean(2 * (predicted * Y).sum(1) / sizes))


def test_no_number_of_concepts_is_better_than_the_tuned_one() -> None:
    scores, Y = draw()
    decoder = TopK().fit(scores, scipy.sparse.csr_matrix(Y))
    tried = [
        mean_f1(TopK(k).fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores).toarray(), Y) for k in range(1, 13)
    ]
    assert decoder.k_ == int(np.argmax(tried)) + 1
    assert decoder.predict(scores).sum(axis=1).max() == decoder.k_


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_is_restored_from_its_state(name: str) -> None:
    scores, Y = draw()
    decoder = make_decoder(name).fit(scores, scipy.sparse.csr_matrix(Y))
    again = make_decoder(name).set_state(json.loads(json.dumps(decoder.get_state())))
    assert (decoder.predict(scores) != again.predict(scores)).nnz == 0
    assert again.report() == decoder.report()


def predict_where_nothing_is_probable(name: str) -> scipy.sparse.csr_matrix:
    fit_scores, Y = draw(60, 4)
    decoder = make_decoder(name).fit(fit_scores, scipy.sparse.csr_matrix(Y))
    return decoder.predict(np.full((3, 4), 1e-4, np.float32))


@pytest.mark.parametrize("name", DECODERS)
def test_every_image_gets_a_concept(name: str) -> None:
    assert (predict_where_nothing_is_probable(name).sum(axis=1) >= 1).all()


@pytest.mark.parametrize("name", ["fixed", "global", "per-concept", "expected-f1"])
def test_a_decoder_that_may_be_empty_predicts_nothing_where_nothing_is_probable(name: str) -> None:
    assert predict_where_nothing_is_probable(f"{name},empty").nnz == 0


@pytest.mark.parametrize("name", DECODERS)
def test_no_image_and_one_image_can_be_decoded(name: str) -> None:
    scores, Y = draw(1)
    decoder = make_decoder(name).fit(scores, scipy.sparse.csr_matrix(Y))
    assert decoder.predict(scores).shape == (1, 12)
    assert decoder.predict(scores[:0]).shape == (0, 12)


def test_a_decoder_that_learns_from_labels_is_tuned() -> None:
    assert not make_decoder("fixed:0.5").tuned
    assert not make_decoder("top-k:3").tuned
    assert make_decoder("top-k").tuned
    assert make_decoder("global").tuned


def test_a_decoder_is_made_from_its_name_and_value() -> None:
    assert make_decoder("fixed").get_params() == {"threshold": 0.3, "may_be_empty": False}
    assert make_decoder("fixed:0.5,empty").get_params() == {"threshold": 0.5, "may_be_empty": True}
    assert make_decoder("top-k:4").get_params() == {"k": 4, "may_be_empty": False}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", f"no decoder 'best'; there are {', '.join(DECODERS)}"),
        ("top-k:0", "expected a number from 1 to 100"),
        ("global,none", "expected nothing or 'empty' after the comma"),
        ("global,empty,empty", "expected nothing or 'empty' after the comma"),
        ("fixed:high", "decoder 'fixed:high': expected a threshold from 0 to 1"),
        ("fixed:1.5", "expected a threshold from 0 to 1"),
        ("fixed:nan", "expected a threshold from 0 to 1"),
        ("global:0.3", "decoder 'global:0.3': it takes no value, found '0.3'"),
    ],
)
def test_an_unknown_decoder_or_value_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_decoder(text)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (FixedThreshold(-0.1), r"threshold = -0.1, expected a number from 0 to 1"),
        (FixedThreshold(float("nan")), "threshold = nan, expected a number"),
        (FixedThreshold("0.3"), "threshold = '0.3', expected a number"),  # type: ignore[arg-type]
        (FixedThreshold(True), "threshold = True, expected a number"),
        (TopK(0), "k = 0, expected a whole number from 1 to 100, or None"),
        (TopK(-3), "k = -3, expected a whole number"),
        (TopK(101), "k = 101, expected a whole number"),
        (TopK(2.0), r"k = 2.0, expected a whole number"),  # type: ignore[arg-type]
        (GlobalThreshold(may_be_empty="no"), "may_be_empty = 'no', expected True or False"),  # type: ignore[arg-type]
    ],
)
def test_a_parameter_out_of_its_range_is_an_error(decoder: Decoder, message: str) -> None:
    scores, Y = draw()
    with pytest.raises(ParameterError, match=message):
        decoder.fit(scores, scipy.sparse.csr_matrix(Y))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("global", {}),
        ("global", {"threshold": "high"}),
        ("global", {"threshold": [[0.5]]}),
        ("per-concept", {"threshold": [0.5]}),
        ("per-concept", {"threshold": [0.5], "report": None}),
        ("top-k", {}),
        ("top-k", {"k": 0}),
        ("top-k", {"k": "3"}),
        ("top-k", {"k": 101}),
        ("platt+global", {"calibration": {"slope": [1.0]}, "decoder": {"threshold": 0.5}}),
        ("platt+global", {"calibration": {"slope": [1.0, 1.0], "offset": [0.0]}, "decoder": {"threshold": 0.5}}),
        ("platt+global", {"calibration": {"slope": float("nan"), "offset": 0.0}, "decoder": {"threshold": 0.5}}),
        ("platt+global", {"calibration": {"slope": 1.0, "offset": 0.0}}),
    ],
)
def test_a_damaged_state_is_an_error(name: str, state: dict[str, object]) -> None:
    with pytest.raises(DamagedFileError):
        make_decoder(name).set_state(state)


def test_thresholds_are_found_where_no_image_has_a_concept() -> None:
    scores = np.zeros((20, 1), np.float32)
    decoder = ConceptThresholds().fit(scores, scipy.sparse.csr_matrix(scores.shape))
    assert decoder.predict(scores).shape == scores.shape


def test_a_tuned_decoder_wants_as_many_labels_as_scores() -> None:
    scores, Y = draw()
    with pytest.raises(ValueError, match=r"scores have shape \(60, 12\) and Y \(59, 12\), expected the same"):
        GlobalThreshold().fit(scores, Y[1:])
    np.testing.assert_array_equal(
        GlobalThreshold().fit(scores, Y).predict(scores).toarray(),
        GlobalThreshold().fit(scores, scipy.sparse.csr_matrix(Y)).predict(scores).toarray(),
    )


@pytest.mark.parametrize("name", ["fixed", "global", "per-concept", "top-k", "platt+global"])
def test_a_decoder_that_is_not_fitted_does_not_predict(name: str) -> None:
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        make_decoder(name).predict(draw()[0])


@pytest.mark.parametrize("n_concepts", [40, 3000])  # few columns are sorted whole by NumPy's partition
@pytest.mark.parametrize("n_columns", [1, 2, 7, 30, 100])
@pytest.mark.parametrize("decimals", [1, 7])
def test_the_most_probable_concepts_are_those_of_a_stable_sort(n_columns: int, decimals: int, n_concepts: int) -> None:
    scores = np.round(np.random.default_rng(0).random((200, n_concepts), np.float32), decimals)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :n_columns]
    np.testing.assert_array_equal(most_probable(scores, n_columns), expected)


def test_a_set_is_bounded_by_its_most_probable_concepts() -> None:
    scores = np.round(np.random.default_rng(0).random((3, 150), np.float32), 1)  # many scores are equal
    predicted = np.zeros(scores.shape, bool)
    predicted[1] = True
    predicted[2, 40:] = True
    bounded = bound_sizes(predicted.copy(), scores)
    assert bounded.sum(axis=1).tolist() == [1, 100, 100]
    assert bounded[0, scores[0].argmax()]
    assert np.flatnonzero(bounded[1]).tolist() == sorted(np.argsort(-scores[1], kind="stable")[:100])
    assert np.flatnonzero(bounded[2]).tolist() == sorted(40 + np.argsort(-scores[2, 40:], kind="stable")[:100])
    assert bound_sizes(predicted, scores, may_be_empty=True).sum(axis=1).tolist() == [0, 100, 100]


def test_ranking_in_blocks_is_ranking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, Y = draw()
    at_once = rank(scores, scipy.sparse.csr_matrix(Y), None)
    monkeypatch.setattr("heads.decoders.ranking.BLOCK_ROWS", 7)
    for one, other in zip(at_once, rank(scores, scipy.sparse.csr_matrix(Y), None), strict=True):
        np.testing.assert_array_equal(one, other)
