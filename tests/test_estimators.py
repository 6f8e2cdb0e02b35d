"""Every head passes scikit-learn's own checks of estimators, except those that do not apply to several labels."""

import pytest
from conftest import EMBEDDING_HEADS, quick_params
from sklearn.utils.estimator_checks import check_estimator

from heads.registry import make_head

ONE_LABEL = "its target is one column of any classes, not an indicator matrix"
NOT_AN_INDICATOR = "its labels are 1 and 2, those of an indicator 0 and 1"
EXCEPTIONS = {
    "check_classifiers_classes": ONE_LABEL,
    "check_classifiers_one_label": ONE_LABEL,
    "check_classifiers_train": "it expects two scores per image, not one per concept",
    "check_classifier_data_not_an_array": NOT_AN_INDICATOR,
    "check_estimators_dtypes": NOT_AN_INDICATOR,
    "check_fit2d_1feature": NOT_AN_INDICATOR,
    "check_classifiers_multilabel_output_format_predict": "it wants int64; int8 is an eighth of it for 2,000 concepts",
}
"""Checks that do not apply to any head, and why."""

CLIPPED = {
    "check_classifiers_multilabel_output_format_predict_proba": "least squares reach 0 and 1, where they are clipped"
}
PARTICULAR = {
    "kernel": CLIPPED,
    "logistic": {
        "check_class_weight_classifiers": "weights depend on concept and label, not on a class: balanced or none"
    },
    "ridge": CLIPPED,
}
"""Checks that do not apply to one head, and why."""


@pytest.mark.usefixtures("without_tracing")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
@pytest.mark.parametrize("name", EMBEDDING_HEADS)
def test_a_head_is_a_scikit_learn_estimator_with_the_listed_exceptions(name: str) -> None:
    reasons = EXCEPTIONS | PARTICULAR.get(name, {})
    head = make_head(name, quick_params(name, epochs=1))
    results = check_estimator(head, expected_failed_checks=reasons, on_skip=None, on_fail=None)
    failed = {each["check_name"]: each["exception"] for each in results if each["status"] == "failed"}
    assert not failed
    assert {each["check_name"] for each in results if each["status"] == "xfail"} == set(reasons)
    assert sum(each["status"] == "passed" for each in results) > 40
