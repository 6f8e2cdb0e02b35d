"""Decoders: which concepts a score names."""

import numpy as np
import pytest
import scipy.sparse

from cache.errors import UserError
from heads.decoders import FixedThreshold, GlobalThreshold, make_decoder


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


def test_only_the_tuned_decoder_says_that_it_looks_at_labels() -> None:
    assert not make_decoder("fixed:0.5").tuned
    assert make_decoder("global").tuned


def test_a_decoder_is_made_from_its_name_and_value() -> None:
    assert make_decoder("fixed").get_params() == {"threshold": 0.3}
    assert make_decoder("fixed:0.5").get_params() == {"threshold": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "no decoder 'best'; there are fixed, global"),
        ("fixed:high", "decoder 'fixed:high': expected a threshold from 0 to 1"),
        ("fixed:1.5", "expected a threshold from 0 to 1"),
        ("fixed:nan", "expected a threshold from 0 to 1"),
        ("global:0.3", "decoder 'global' takes no value, found '0.3'"),
    ],
)
def test_a_decoder_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_decoder(text)
