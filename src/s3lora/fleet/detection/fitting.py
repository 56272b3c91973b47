"""One fit of the regression: penalty by cross-validation, calibration, threshold. Needs scikit-learn."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3lora.errors import UsageError
from s3lora.fleet.detection.detector import Model, falling
from s3lora.needs import need

Float = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Values of C, the inverse of the penalty, that are tried.
CANDIDATES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
_NO_SOLUTION, _FIX = "the regression has no finite solution", "leave out signatures of an absurd size"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model, and the C that was chosen for it."""

    model: Model
    inverse_penalty: float


def fit(x: Float, y: Integers, folds: int, seed: int, target: float) -> Fitted:
    """Fit (n, 20) signatures and their labels; nothing but these rows is looked at.

    C is the one of `CANDIDATES` with the least log loss over the folds, the smallest of equals. Calibration is Platt's
    sigmoid on scores of each adapter by the regression of the folds that it is not in. The threshold is the j-th
    highest probability of the adapters labelled 0 among these, with j = ⌊target·(n + 1)⌋: of another adapter like
    them, the chance to lie above is then at most j / (n + 1) ≤ target. Where n is too small for that, j is 1.

    Raises UsageError where a column is so strange that no finite solution is found.
    """
    with warnings.catch_warnings():
        # Numbers far below 1e-150 make Newton's method fall back on another, which it says; what is found is checked.
        warnings.simplefilter("ignore")
        return _fit(x, y, folds, seed, target)


def _fit(x: Float, y: Integers, folds: int, seed: int, target: float) -> Fitted:
    splits = need("sklearn.model_selection", "fleet")
    splitter = splits.StratifiedKFold(folds, shuffle=True, random_state=seed)
    losses = [
        -float(np.mean(splits.cross_val_score(regression(c), x, y, cv=splitter, scoring="neg_log_loss")))
        for c in CANDIDATES
    ]
    if not np.isfinite(losses).all():
        raise UsageError(_NO_SOLUTION, fix=_FIX)
    best = CANDIDATES[int(np.argmin(losses))]
    model = model_of(calibrated(x, y, best, splitter), x)
    scores = splits.cross_val_predict(regression(best), x, y, cv=splitter, method="decision_function")
    unseen = falling(model.slope * scores + model.offset)
    negative = np.sort(unseen[y == 0])[::-1]
    rank = max(1, int(target * (len(negative) + 1) + 1e-9))
    return Fitted(dataclasses.replace(model, threshold=float(negative[rank - 1])), best)


def regression(c: float) -> Any:
    """Return a logistic regression on standardised numbers."""
    scaler = need("sklearn.preprocessing", "fleet").StandardScaler()
    # Newton's method, because it ends at the optimum itself: the order of rows then matters to the last digits only.
    logistic = need("sklearn.linear_model", "fleet").LogisticRegression(C=c, solver="newton-cholesky", max_iter=1000)
    return need("sklearn.pipeline", "fleet").make_pipeline(scaler, logistic)


def calibrated(x: Float, y: Integers, c: float, splitter: Any) -> Any:
    """Return the fitted `CalibratedClassifierCV`: one regression on all rows, one sigmoid on cross-validated scores."""
    classifier = need("sklearn.calibration", "fleet").CalibratedClassifierCV
    return classifier(regression(c), method="sigmoid", cv=splitter, ensemble=False).fit(x, y)


def model_of(classifier: Any, x: Float) -> Model:
    """Return the numbers of a fitted `calibrated`; its threshold is 0.5 for now, and `x` gives the ranges."""
    found = classifier.calibrated_classifiers_[0]
    scaler, logistic = (step for _, step in found.estimator.steps)
    sigmoid = found.calibrators[0]
    numbers = (scaler.mean_, scaler.scale_, logistic.coef_[0], x.min(axis=0), x.max(axis=0))
    if not all(np.isfinite(values).all() for values in (*numbers, logistic.intercept_, sigmoid.a_, sigmoid.b_)):
        raise UsageError(_NO_SOLUTION, fix=_FIX)
    means, scales, coefficients, lowest, highest = (tuple(map(float, values)) for values in numbers)
    return Model(
        means=means,
        scales=scales,
        coefficients=coefficients,
        intercept=float(logistic.intercept_[0]),
        slope=float(sigmoid.a_),
        offset=float(sigmoid.b_),
        threshold=0.5,
        lowest=lowest,
        highest=highest,
    )
