"""The spectrum of a kernel matrix of n samples, computed on the smaller side, and its entropies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from upturn.types import Array

Strips = Callable[[], Iterator[Array]]  # features (rows, D) float64 of unit length, some rows at a time, in order


@dataclass(frozen=True)
class Spectrum:
    """``values`` (L,) eigenvalues above 0 of K/n, which sum to 1, and the share of each sample in each of them.

    v_l are the eigenvectors of rho = sum_i phi_i phi_i^T / n, whose eigenvalues are the same; phi_i has length 1.
    """

    values: Array
    of: Callable[[Array], Array]  # weights (L,) -> (n,) sum_l weights_l <phi_i, v_l>^2

    @staticmethod
    def of_similarity(similarity: Array) -> Spectrum:
        """Of K (n, n) with ones on the diagonal: <phi_i, v_l>^2 = n lambda_l U_il^2 for eigenvectors U of K/n."""
        n = len(similarity)
        values, vectors = np.linalg.eigh(similarity / n)
        used = _positive(values, n)
        values, squares = values[used], vectors[:, used] ** 2
        return Spectrum(values, lambda weights: n * (squares @ (values * weights)))

    @staticmethod
    def of_features(strips: Strips) -> Spectrum:
        """Of features whose products are the kernel: the eigenvalues are those of their second moments (D, D)."""
        n, moments = 0, np.zeros(())
        for strip in strips():
            moments = moments + strip.T @ strip
            n += len(strip)
        values, vectors = np.linalg.eigh(moments / n)
        used = _positive(values, n)
        values, vectors = values[used], vectors[:, used]

        def of(weights: Array) -> Array:
            return np.concatenate([(strip @ vectors) ** 2 @ weights for strip in strips()])

        return Spectrum(values, of)

    def entropy(self, order: float) -> float:
        """Rényi's of the eigenvalues, in nats: Shannon's at order 1, log of their number at 0."""
        values = self.values
        if order == 1:
            return float(-(values * np.log(values)).sum())
        if math.isinf(order):
            return float(-np.log(values.max()))
        return float(np.log((values**order).sum()) / (1 - order))

    def influence(self, order: float) -> Array:
        """(n,) the entropy's derivative in the weight of each sample (mean 0), for orders above 0.

        d tr f(rho) = tr f'(rho) (phi_i phi_i^T - rho): at order 1, -phi_i^T log(rho) phi_i - H; at others
        q/(1-q) (phi_i^T rho^(q-1) phi_i / tr rho^q - 1); at infinity 1 - <phi_i, v_1>^2 / lambda_1.
        """
        values = self.values
        if order == 1:
            return self.of(-np.log(values)) - self.entropy(1)
        if math.isinf(order):
            return 1 - self.of((values == values.max()) / values.max())
        factor = order / (1 - order)
        return factor * (self.of(values ** (order - 1) / (values**order).sum()) - 1)


def _positive(values: Array, n: int) -> Array:
    """Values above rounding error: n machine epsilons of the largest."""
    used: Array = values > values.max(initial=0.0) * n * np.finfo(np.float64).eps
    return used
