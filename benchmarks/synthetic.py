"""Out-of-fold logits without networks: synthetic ones, and those of scikit-learn's classifiers for its digits."""

import numpy as np

CHUNK = 2048  # rows


def synthetic(
    members: int, rows: int, classes: int, seed: int, fresh: int = 20_000, folds: int = 1, common: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(z, labels, fresh_z, fresh_labels): two samples from one set of members; z float32 (M, N, C), labels int64 (N,).

    folds: of more than one, the fresh logits are those of as many networks of each member, (M, N, C) for one after the
    other: (folds * M, N, C). They share `common` of the variance of the member's noise.

    A row's evidence is `signal` for its class, under noise of which half the variance is shared by all members; rows
    differ in how noisy they are. Members differ in quality, in a bias for each class, in the fifth of the classes that
    they partly take for others, and in how far (1.5 to 3 times) they overstate their logits. Classes have a long tail.

    The plain mean of 12 members for 18 classes, or of 30 for 100, has a log loss of .6 to .7 and an accuracy of .88;
    single members an accuracy of .6 to .8 and a temperature of 1.5 to 3.2.
    """
    draw = np.random.default_rng(seed)
    prior = (np.arange(classes) + 5.0) ** -0.7
    prior /= prior.sum()
    signal = 1.4 + 2.05 * np.sqrt(2 * np.log(classes))  # the more classes, the larger is the largest noise
    quality = draw.uniform(0.8, 1.0, members)
    scale = draw.uniform(1.5, 3.0, members).astype(np.float32)
    bias = (draw.normal(0, 0.4, (members, classes)) + np.log(prior)).astype(np.float32)
    evidence = np.tile(signal * np.eye(classes), (members, 1, 1))  # by true class
    for m in range(members):
        mistaken = draw.choice(classes, max(1, classes // 5), replace=False)
        taken_for = (mistaken + draw.integers(1, classes, len(mistaken))) % classes
        evidence[m, mistaken, taken_for] = draw.uniform(0.2, 0.5, len(mistaken)) * signal
    evidence = (evidence * quality[:, None, None]).astype(np.float32)

    def sample(count: int, folds: int = 1) -> tuple[np.ndarray, np.ndarray]:
        labels = draw.choice(classes, count, p=prior)
        z = np.empty((folds * members, count, classes), dtype=np.float32)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            own = labels[part]
            noise = 1.46 * np.exp(draw.normal(0, 0.42, (len(own), 1))).astype(np.float32)
            shared = draw.standard_normal((len(own), classes), dtype=np.float32)
            for m in range(members):
                of_member = draw.standard_normal((len(own), classes), dtype=np.float32)
                for fold in range(folds):
                    error = shared + of_member
                    if folds > 1:
                        of_fold = draw.standard_normal((len(own), classes), dtype=np.float32)
                        error = shared + np.sqrt(common) * of_member + np.sqrt(1 - common) * of_fold
                    z[fold * members + m, part] = scale[m] * (evidence[m][own] + bias[m] + noise * error)
        return z, labels

    return *sample(rows), *sample(fresh, folds)


def digits() -> tuple[np.ndarray, ...]:
    """Log-probabilities of six classifiers: out of fold on two thirds of the digits, refitted for the last third.

    (z, labels, folds, fresh_z, fresh_labels), as `synthetic`; a probability of 0 counts as 1e-15.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    x, fresh_x, y, fresh_y = train_test_split(x / 16, y, test_size=1 / 3, stratify=y, random_state=0)
    models = (
        LogisticRegression(max_iter=1000),
        KNeighborsClassifier(5),
        RandomForestClassifier(100, random_state=0),
        CalibratedClassifierCV(SVC(gamma=0.05), ensemble=False),
        MLPClassifier((64,), max_iter=400, random_state=0),
        GaussianNB(var_smoothing=1e-3),
    )
    parts = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y))
    folds = np.empty(len(y), dtype=np.int64)
    for fold, (_, test) in enumerate(parts):
        folds[test] = fold
    oof = [cross_val_predict(model, x, y, cv=parts, method="predict_proba") for model in models]
    fresh = [model.fit(x, y).predict_proba(fresh_x) for model in models]
    z, fresh_z = (np.log(np.maximum(np.stack(p), 1e-15)).astype(np.float32) for p in (oof, fresh))
    return z, y.astype(np.int64), folds, fresh_z, fresh_y.astype(np.int64)
