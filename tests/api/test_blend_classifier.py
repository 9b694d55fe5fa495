"""`BlendClassifier` keeps scikit-learn's contract."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import ensemble as ens
from ensemble.blend.probabilities import softmax

LABELS = np.arange(90) % 3
Z = np.random.default_rng(0).normal(size=(2, 90, 3)) + 2 * np.eye(3)[LABELS]
X = np.hstack(Z)

COLUMNS = "its X has columns that are not one for each class and member"
OF_FEATURES = "it is scored on features, which are no predictions"
NOT_APPLICABLE = {
    "check_classifiers_classes": COLUMNS,
    "check_classifiers_train": OF_FEATURES,
    "check_dtype_object": COLUMNS,
    "check_estimators_dtypes": COLUMNS,
    "check_estimators_fit_returns_self": COLUMNS,
    "check_estimators_nan_inf": COLUMNS,
    "check_estimators_overwrite_params": COLUMNS,
    "check_estimators_pickle": COLUMNS,
    "check_n_features_in_after_fitting": COLUMNS,
    "check_pipeline_consistency": COLUMNS,
    "check_positive_only_tag_during_fit": COLUMNS,
    "check_readonly_memmap_input": COLUMNS,
}
# On top of two classifiers that turn any columns into predictions all of these apply.
STACKED = StackingClassifier(
    [("bayes", GaussianNB()), ("lda", LinearDiscriminantAnalysis())],
    final_estimator=ens.BlendClassifier("mean", kind="probabilities", n_members=2),
    cv=2,
)
NOT_APPLICABLE_TO_LDA = {
    "check_classifiers_one_label": "LinearDiscriminantAnalysis needs two classes",
    "check_classifiers_one_label_sample_weights": "LinearDiscriminantAnalysis takes no weights",
}


@pytest.mark.filterwarnings("ignore")  # scikit-learn's, of data that its own checks make
@parametrize_with_checks(
    [ens.BlendClassifier("vote"), STACKED],
    expected_failed_checks=lambda model: NOT_APPLICABLE if model is not STACKED else NOT_APPLICABLE_TO_LDA,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("method", ["mean", "vote", "pool", "stack"])
def test_it_is_the_blend_of_the_same_arrays(method):
    blend = ens.BlendClassifier(method).fit(X, LABELS)
    assert blend.n_members_ == 2 and blend.n_features_in_ == 6 and blend.classes_.tolist() == [0, 1, 2]
    of_arrays = ens.fit_blend(list(Z), LABELS, method=method)
    assert blend.predict_proba(X) == pytest.approx(of_arrays.predict_proba(list(Z)), abs=1e-6)
    cube = Z.swapaxes(0, 1)
    assert np.array_equal(clone(blend).fit(cube, LABELS).predict_proba(cube), blend.predict_proba(X))


def test_probabilities_of_the_second_of_two_classes_are_enough():
    binary, p = LABELS % 2, softmax(Z[:, :, :2])
    one = ens.BlendClassifier("vote", kind="probabilities", n_members=2).fit(p[:, :, 1].T, binary)
    both = ens.BlendClassifier("vote", kind="probabilities").fit(np.hstack(p), binary)
    assert one.predict_proba(p[:, :, 1].T) == pytest.approx(both.predict_proba(np.hstack(p)), abs=1e-6)
    log = np.log(p)
    as_log = ens.BlendClassifier("vote", kind="log-probabilities", n_members=2).fit(log[:, :, 1].T, binary)
    assert as_log.predict_proba(log[:, :, 1].T) == pytest.approx(both.predict_proba(np.hstack(p)), abs=1e-6)
    margins = (Z[:, :, 1] - Z[:, :, 0]).T
    of_logits = ens.BlendClassifier("vote", n_members=2).fit(margins, binary)
    assert of_logits.predict_proba(margins) == pytest.approx(both.predict_proba(np.hstack(p)), abs=1e-6)


def test_it_is_scored_by_cross_validation_and_in_a_pipeline():
    groups = np.arange(90) // 3
    model = make_pipeline(FunctionTransformer(np.log), ens.BlendClassifier("vote", kind="log-probabilities"))
    p = np.hstack(softmax(Z))
    found = cross_val_score(
        model, p, LABELS, groups=groups, cv=GroupKFold(3), params={"blendclassifier__groups": groups}
    )
    assert found.shape == (3,) and (found > 0.8).all()


@pytest.mark.parametrize("method", ["mean", "auto"])
def test_with_costs_it_decides_for_the_least_expected_cost(method):
    costs = np.array([[0, 1, 1], [1, 0, 1], [20, 20, 0]])
    names = np.array(["a", "b", "c"])[LABELS]
    blend = ens.BlendClassifier(method, "expected_cost", costs=costs).fit(X, names)
    decided = (blend.predict_proba(X) @ costs).argmin(axis=1)
    assert blend.predict(X).tolist() == blend.classes_[decided].tolist()
    assert (decided == 2).sum() > (blend.predict_proba(X).argmax(axis=1) == 2).sum()
    assert clone(blend).fit(X, names).predict(X).tolist() == blend.predict(X).tolist()


def test_groups_stay_together_in_the_inner_folds():
    groups = np.arange(90) // 30
    whole = ens.BlendClassifier("stack").fit(X, LABELS, groups=groups)
    assert not np.array_equal(whole.predict_proba(X), ens.BlendClassifier("mean").fit(X, LABELS).predict_proba(X))
    with pytest.raises(ValueError, match=r"^groups are \(3,\), want \(90,\)$"):
        ens.BlendClassifier().fit(X, LABELS, groups=[1, 2, 3])


@pytest.mark.parametrize(
    ("changes", "x", "line"),
    [
        ({}, X[:, :5], r"X has 5 feature\(s\), but y has 3 classes: want 3 for each member"),
        ({"n_members": 3}, X, r"X has 6 feature\(s\), but y has 3 classes: want 3 x 3"),
        ({"method": "vot"}, X, "blend method 'vot' is not one of"),
        ({}, np.hstack(softmax(Z)), "member 0: its rows sum to 1, as those of probabilities do"),
        ({"kind": "odds"}, X, "kind 'odds' is not one of"),
        ({"metric": "expected_cost"}, X, r"metric 'expected_cost' needs costs: a float array \(3, 3\)"),
        ({"costs": np.eye(3)}, X, "costs go with the metric expected_cost, not log_loss"),
        ({"kind": "probabilities"}, X, "member 0: row 0: probabilities out of their range"),
        ({}, Z, "Found input variables with inconsistent numbers of samples"),
    ],
)
def test_what_does_not_fit_together_is_a_value_error(changes, x, line):
    with pytest.raises(ValueError, match=line):
        ens.BlendClassifier(**changes).fit(x, LABELS)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_prediction_depends_on_no_other_row():
    shares = np.random.default_rng(4).multinomial(500, [0.985, 0.013, 0.002], size=90) / 500
    x = np.hstack([shares, np.roll(shares, 1, axis=1)])
    blend = ens.BlendClassifier("mean", kind="probabilities").fit(x, LABELS)
    whole = blend.predict_proba(x)
    for rows in (slice(40, 90), *(slice(row, row + 1) for row in range(90))):
        assert np.array_equal(blend.predict_proba(x[rows]), whole[rows])
