"""A classifier two-sample test: accuracy on rows that the classifier was not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from upturn.seeds import generator
from upturn.types import Array

_WAVES = 256  # landmarks of the radial features: what no line can part, such as a smaller spread
_SHARPEST = 0.1  # inverse strength of the ridge penalty


@dataclass(frozen=True)
class Separation:
    """``accuracy`` on held-out rows, whether each was classified right, and the p-value against chance.

    right  (T,) 0.0 or 1.0, as many of either sample; ``rows`` (T,) which rows of the first and then of the second
    """

    accuracy: float
    p: float
    right: Array
    rows: Array


Judge = Callable[[Array], Array]


def separate(first: Array, second: Array, key: int) -> Separation:
    """The classifier two-sample test of Lopez-Paz & Oquab, ICLR 2017, section 3: half to learn, half to test.

    As many rows of both are used (``first`` (N, D), ``second`` (M, D)). Under no difference the accuracy is normal
    about 1/2 with variance 1 / (4 T); p is one-sided.
    """
    from scipy.special import ndtr

    draw, n = generator(key), min(len(first), len(second))
    learn = n // 2
    orders = [draw.permutation(len(part))[:n] for part in (first, second)]
    classifier = fitted(first[orders[0][:learn]], second[orders[1][:learn]], key)
    right = np.concatenate([
        classifier(first[orders[0][learn:]]) < 0.5, classifier(second[orders[1][learn:]]) >= 0.5
    ]).astype(np.float64)
    accuracy = float(right.mean())
    rows = np.concatenate([orders[0][learn:], orders[1][learn:]])
    return Separation(accuracy, float(ndtr((0.5 - accuracy) * 2 * np.sqrt(len(right)))), right, rows)


def fitted(first: Array, second: Array, key: int) -> Judge:
    """The probability that a row is of the second sample, both weighted equally: (K, D) -> (K,) float64.

    Logistic regression on standardised features and radial ones of random landmarks (scikit-learn's Nystroem, width by
    the features' own number): one fit of it finds shifts, spreads and lost modes, where a network needs care.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    data = np.concatenate([first, second]).astype(np.float64)
    label = np.repeat([0, 1], [len(first), len(second)])
    radial = Nystroem(gamma=1 / data.shape[1] / 2, n_components=min(_WAVES, len(data)), random_state=key % 2**32)
    model = make_pipeline(
        StandardScaler(), make_union(FunctionTransformer(), make_pipeline(radial, StandardScaler())),
        LogisticRegression(C=_SHARPEST, class_weight="balanced", max_iter=1000),
    ).fit(data, label)

    def classifier(rows: Array) -> Array:
        if not len(rows):
            return np.zeros(0)
        found: Array = model.predict_proba(rows.astype(np.float64))[:, 1]
        return found

    return classifier
