"""Rankings: the maximum by another way, intervals that cover, and words where no number can say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from helpers.simulated_voters import played, votes_of
from upturn.annotation.statistics.contests import TIED, Contests, contests
from upturn.annotation.statistics.ranking import rank, ranking
from upturn.annotation.statistics.strengths import fit
from upturn.types import Array

STRENGTH = np.array([1.0, 0.4, 0.0, -0.4, -1.0])


def log_likelihood(found: Contests, strength: Array, nu: float) -> float:
    """From the definition, one contest after another."""
    total = 0.0
    for there, won, may in zip(found.there, found.won, found.may_tie, strict=True):
        own = strength[there[there >= 0]]
        tie = nu * math.exp(own.mean()) if may else 0.0
        chosen = tie if won == TIED else math.exp(strength[there[won]])
        total += math.log(chosen / (np.exp(own).sum() + tie))
    return total


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("k", "nu"), [(2, 0.0), (2, 0.6), (4, 0.0), (4, 0.5)])
def test_the_maximum_and_its_covariance_are_those_of_the_definition(k: int, nu: float) -> None:
    """scipy's BFGS on the likelihood written out; the covariance from a Hessian of finite differences."""
    found = played(STRENGTH, 300, k, nu, np.random.default_rng(k))
    got = fit(found)

    def loss(free: Array) -> float:
        return -log_likelihood(found, np.append(0.0, free[:4]), math.exp(free[4]) if nu else 0.0)

    size = 5 if nu else 4
    done = minimize(loss, np.zeros(size), method="BFGS")
    other = np.append(0.0, done.x[:4])
    np.testing.assert_allclose(got.strength, other - other.mean(), atol=1e-3)
    assert got.log_likelihood == pytest.approx(-done.fun, abs=1e-6)
    if nu:
        assert got.nu[k] == pytest.approx(math.exp(done.x[4]), rel=1e-3)
    step = 1e-3 * np.eye(size)
    hessian = np.array([[
        (loss(done.x + a + b) - loss(done.x + a - b) - loss(done.x - a + b) + loss(done.x - a - b)) / 4e-6
        for b in step] for a in step])
    cov = np.linalg.inv(hessian)[:4, :4]
    for i in range(4):
        for j in range(i):  # of differences, which no choice of origin changes
            expected = cov[i, i] + cov[j, j] - 2 * cov[i, j]
            ours = got.cov[i + 1, i + 1] + got.cov[j + 1, j + 1] - 2 * got.cov[i + 1, j + 1]
            assert ours == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "nu"), [(2, 0.0), (2, 0.6), (4, 0.5)])
def test_intervals_cover_the_truth(k: int, nu: float) -> None:
    """100 simulations of 5 strengths: 0.95 within four standard errors of a share of 100, players being correlated."""
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(100):
        found = rank(played(STRENGTH, 300, k, nu, rng))
        truth = STRENGTH[[int(name) for name in found.names]]
        inside.append(((found.low <= truth) & (truth <= found.high)).mean())
    assert abs(np.mean(inside) - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 100)


def test_equal_answers_to_one_task_widen_the_interval() -> None:
    """Each contest copied eight times within its task: the sandwich over tasks stays as wide as with one copy."""
    once = played(STRENGTH, 400, 2, 0.0, np.random.default_rng(1))
    again = once.take(np.tile(np.arange(400), 8))
    alone, copied, naive = rank(once, clusters=once.task), rank(again, clusters=again.task), rank(again)
    assert alone.names == copied.names
    np.testing.assert_allclose(copied.high - copied.low, alone.high - alone.low, rtol=1e-3)
    np.testing.assert_allclose((naive.high - naive.low) * math.sqrt(8), rank(once).high - rank(once).low, rtol=1e-3)


def pick(names: tuple[str, ...], best: int | None, task: str) -> dict[str, object]:
    ranks = tuple(int(i == best) for i in range(len(names)))
    return {"shown": names, "ranks": ranks, "action": "tie" if best is None else "said", "task": task}


def test_who_never_lost_has_no_number() -> None:
    rows = [pick(("a", "b"), 0, "t1"), pick(("a", "b"), 0, "t2"), pick(("b", "c"), 0, "t3"), pick(("b", "c"), 1, "t4")]
    found = ranking(votes_of(rows))
    assert found.names[0] == "a" and math.isnan(found.strength[0]) and not np.isnan(found.strength[1:]).any()
    assert any("a beat b and c each of the 2 times" in line for line in found.notes)
    assert math.isnan(found.difference("a", "b").value) and "different parts" in found.difference("a", "b").note


def test_players_never_compared_are_in_the_notes() -> None:
    rows = [pick(names, best, f"t{i}{names[0]}") for i, best in enumerate((0, 1, 0, 1))
            for names in (("a", "b"), ("x", "y"))]
    found = ranking(votes_of(rows))
    assert len(set(found.part)) == 2 and any(line.startswith("Never compared") for line in found.notes)
    assert math.isnan(found.difference("a", "x").value)


def test_only_ties_are_in_the_notes() -> None:
    found = ranking(votes_of([pick(("a", "b"), None, f"t{i}") for i in range(3)]))
    assert np.isnan(found.strength).all() and found.notes == ("a and b only ever tied, 3 times.",)


def test_players_are_models_and_what_says_nothing_of_them_is_counted() -> None:
    """Candidates of one model say nothing; "all bad", strangers and skipped votes are counted by reason."""
    owner = {"a1": "old", "a2": "old", "b1": "new", "b2": "new"}
    rows = [pick(("a1", "b1"), 1, "t1"), pick(("a2", "b2"), 0, "t2"), pick(("a1", "b2"), 1, "t3"),
            pick(("a1", "a2"), 0, "t4"), pick(("a1", "zz"), 0, "t5"), pick(("a1", "b1"), 0, "t6") | {"action": "skip"},
            pick(("a1", "b1"), None, "t7") | {"action": "bad"}]
    found = ranking(votes_of(rows), owner)
    assert set(found.names) == {"old", "new"} and found.votes == 3
    gap = found.difference("new", "old")
    assert gap.value == pytest.approx(math.log(2))  # 2 wins of 3
    assert found.left_out == {
        "skipped": 1, "all candidates are bad": 1, "of candidates that are none of these": 1,
        "all candidates are of one": 1,
    }


def test_a_ranking_is_several_contests() -> None:
    """Plackett–Luce: best of three, then best of two; a tie in the middle leaves the two unsaid of one another."""
    rows = [{"shown": ("a", "b", "c"), "ranks": (2, 1, 3), "mode": "rank", "task": "t"},
            {"shown": ("a", "b", "c"), "ranks": (2, 1, 2), "mode": "rank", "task": "u"}]
    found, _ = contests(votes_of(rows))
    said = sorted((int(v), tuple(sorted(t[t >= 0].tolist())), int(t[w])) for v, t, w in
                  zip(found.vote, found.there, found.won, strict=True))
    assert said == [(0, (0, 1, 2), 1), (0, (0, 2), 0), (1, (0, 1, 2), 1)]
