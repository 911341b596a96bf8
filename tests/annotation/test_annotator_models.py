"""Annotator models: planted reliabilities, integrals computed by another method."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from helpers.simulated_voters import Person, joined, simulated_votes, votes_of
from upturn.annotation.statistics.annotator_model import _Model, noisy_choice
from upturn.annotation.statistics.comparisons import compared
from upturn.annotation.statistics.dawid_skene_choice import winners

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_winners_recover_planted_reliabilities_and_the_best_candidate() -> None:
    """People who know the best with probability r, else guess; ties and "all bad" now and then.

    A person's 300 answers: an error of a share is at most 0.029, and what is true is not known either: 5 of those.
    """
    knows = np.linspace(0.2, 0.95, 15)
    votes, taste = simulated_votes([Person(f"p{i:02d}", k, tie=0.03, bad=0.02) for i, k in enumerate(knows)], 900, 5, 2)
    found = compared(votes)
    fitted = winners(found)
    expected = knows * 0.95
    assert np.abs(fitted.reliability - expected).max() < 5 * 0.029
    z = (fitted.reliability - expected) / fitted.error
    assert np.abs(z).mean() < 2 and fitted.answers.sum() == len(votes)
    best = [names[np.argmax(fitted.posterior[: len(found.set_of)][found.set_of == s])]
            for s, names in enumerate([found.answers.names[found.set_of == s] for s in range(found.sets)])]
    right = np.mean([int(name[6:]) == taste[int(name[1:5])].argmax() for name in best])
    votes_right = np.mean([int(str(v[np.argmax(r)])[6:]) == taste[int(str(v[0])[1:5])].argmax()
                           for v, r in zip(votes.shown, votes.ranks, strict=True)])
    assert right > 0.9 and right > votes_right + 0.2


def test_winners_posterior_is_that_of_an_enumeration() -> None:
    """At the fitted reliabilities: Bayes over the outcomes of each set, from the definition."""
    people = [Person("a", 0.9), Person("b", 0.4, tie=0.2, bad=0.2), Person("c", 0.7, bad=0.1)]
    votes, _ = simulated_votes(people, 40, 3, 3, k=3)
    found = compared(votes)
    fitted = winners(found)
    count, answers = len(found.set_of), found.answers
    ties, bads = float((answers.best == -1).sum()), float((answers.best == -2).sum())
    share = {-1: (ties + 1) / (len(votes) + 3), -2: (bads + 1) / (len(votes) + 3)}
    prior = (fitted.posterior[count:].reshape(-1, 2).sum(axis=0) + 1) / (found.sets + 3)
    for s in range(found.sets):
        slots = [*np.flatnonzero(found.set_of == s).tolist(), count + 2 * s, count + 2 * s + 1]
        own = np.array([(1 - prior.sum()) / 3] * 3 + prior.tolist())
        for n in np.flatnonzero(found.group == s):
            guess = share.get(int(answers.best[n]), (1 - share[-1] - share[-2]) / 3)
            r = fitted.reliability[answers.person[n]]
            own *= [r * (slot == found.slot[n]) + (1 - r) * guess for slot in slots]
        np.testing.assert_allclose(fitted.posterior[slots], own / own.sum(), atol=1e-4)


def test_the_gradient_of_the_noisy_choice_is_that_of_its_loss() -> None:
    """Finite differences, with picks, ties and rankings."""
    people = [Person("a", 0.8, 1.0, tie=0.2), Person("b", 0.5, 1.0), Person("c", 0.9, 1.0)]
    votes, _ = simulated_votes(people, 20, 3, 4, k=3)
    ranked = [{"person": "a", "task": f"r{i}", "mode": "rank", "shown": (f"r{i}x", f"r{i}y", f"r{i}z"), "ranks": ranks}
              for i, ranks in enumerate(itertools.permutations((1, 2, 3)))]
    model = _Model.of(compared(joined(votes, votes_of(ranked))))
    free = np.random.default_rng(0).normal(size=5) * 0.5
    _, gradient = model.loss(free)
    for i in range(5):
        step = 1e-5 * np.eye(5)[i]
        slope = (model.loss(free + step)[0] - model.loss(free - step)[0]) / 2e-5
        assert slope == pytest.approx(gradient[i], abs=1e-6)


def test_the_likelihood_of_the_noisy_choice_is_an_integral() -> None:
    """Of a pair: P = integral of (r sigmoid(d) + (1 - r) / 2) over votes, d normal with variance 2 spread^2.

    By Gauss–Hermite with 80 nodes; 256 points agree to three digits.
    """
    rows = [{"person": p, "task": "t", "mode": "compare", "shown": ("a", "b"), "ranks": ranks}
            for p, ranks in (("p", (1, 2)), ("q", (1, 2)), ("r", (2, 1)))]
    model = _Model.of(compared(votes_of(rows)))
    for logits, spread in (((2.0, 0.0, 1.0), 1.0), ((-1.0, 1.0, 3.0), 2.0)):
        free = np.array([*logits, math.log(spread), -8.0])
        known = 1 / (1 + np.exp(-np.array(logits)))
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        first = 1 / (1 + np.exp(-math.sqrt(2) * spread * nodes))
        # without the prior of one known answer a person; a guess is a tie one time in five
        model_says = -model.loss(free)[0] - float(np.log(known).sum())
        guess = np.exp(model.guess[0])
        joint = np.prod([k * (first if i < 2 else 1 - first) + (1 - k) * guess for i, k in enumerate(known)], axis=0)
        exact = math.log(float((weights * joint).sum() / weights.sum()))
        assert model_says == pytest.approx(exact, abs=2e-3)
    assert np.exp(model.guess[0]) == pytest.approx((1 - 1 / 5) / 2)  # (ties + 1) / (answers + 2), then one of two


@pytest.mark.long
@pytest.mark.slow
def test_noisy_choice_tells_guessers_and_orders_candidates() -> None:
    """Picks of four at temperature 1: reliabilities 0, a half and 1, 400 answers each, in the order they were planted.

    Rewards correlate with the planted taste, about the mean of their set, more than shares of votes do.
    """
    knows = np.repeat([0.0, 0.5, 1.0], 4)
    people = [Person(f"p{i:02d}", k, temperature=1.0) for i, k in enumerate(knows)]
    votes, taste = simulated_votes(people, 480, 10, 5, spread=2.0)
    found = compared(votes)
    fitted = noisy_choice(found)
    means = [fitted.reliability[knows == k].mean() for k in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(means, [0, 0.5, 1], atol=0.12)
    assert fitted.spread == pytest.approx(2.0, rel=0.25)
    own = np.array([taste[int(name[1:5]), int(name[6:])] for name in found.answers.names])
    own -= np.array([taste[int(name[1:5])].mean() for name in found.answers.names])
    share = np.bincount(found.answers.winner, minlength=len(own)) / 10
    ours = np.corrcoef(fitted.reward, own)[0, 1]
    assert ours > np.corrcoef(share, own)[0, 1] + 0.05
    np.testing.assert_allclose(np.bincount(found.set_of, weights=fitted.best), 1)
    within = np.abs(fitted.reward - own) < 2 * fitted.error
    assert 0.9 < within.mean() < 0.99  # of a normal 0.954
