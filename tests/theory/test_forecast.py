"""Tests of the forecast of each round against simulated learners, exact formulas and a run of the loop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.small_recipes import GAUSSIAN, small
from upturn import plan, theory
from upturn.loop import loop
from upturn.theory import DiscreteLearner, GaussianLearner, Selector
from upturn.theory.case import Case
from upturn.theory.diversity import chosen, diversity_left, parts

pytestmark = pytest.mark.slow

P = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])

ODDS, BEST, PICKED = Selector("odds"), Selector("best"), Selector("odds", by_votes=True)


def case(policy: str = "replace", n: int = 40, real: int = 0, rounds: int = 12, **changes: object) -> Case:
    asked: dict[str, object] = {
        "lam": None, "selection": (), "candidates": 1, "temperature": 1.0, "guidance": 1.0, "modes": 8,
        "size": None, "rewards": None,
    }
    return Case(policy, n, real, rounds, **{**asked, **changes})  # type: ignore[arg-type]


def test_pure_chance_is_the_exact_formula() -> None:
    """Replace without real data: Wright's heterozygosity and the typical log det, to rounding."""
    left = diversity_left(case(), DiscreteLearner(P), 12)
    same = float(np.sum(P**2)) / left[-1]
    assert 1 - same == pytest.approx(theory.mean_heterozygosity(40, 12, theory.heterozygosity(P)), rel=1e-12)
    for division in ("n", "n-1"):
        left = diversity_left(case(), GaussianLearner(np.zeros(3), np.diag([1.0, 2.0, 0.5]), division=division), 12)
        assert 6 * math.log(left[-1]) == pytest.approx(theory.mean_log_det(40, 3, 12, 0.0, division), rel=1e-6)


def test_accumulating_is_the_exact_formula() -> None:
    left = diversity_left(case("accumulate", real=0), DiscreteLearner(P), 12)
    kept = theory.accumulated_heterozygosity(40, 12, 0, theory.heterozygosity(P))
    assert 1 - float(np.sum(P**2)) / left[-1] == pytest.approx(kept, rel=1e-12)
    grown = diversity_left(case("accumulate", real=40), GaussianLearner(np.zeros(1), np.eye(1)), 12)
    assert grown[-1] ** 2 == pytest.approx(theory.accumulated_variance(40, 12), rel=0.02)  # mean against typical path


def test_real_data_at_a_temperature_settle_at_the_formula() -> None:
    held = case(n=1_000_000, real=1_000_000, lam=2.0, temperature=0.8, rounds=60)
    left = diversity_left(held, GaussianLearner(np.zeros(2), np.eye(2)), 60)
    assert left[-1] ** 2 == pytest.approx(theory.tempered_variance(2.0, 0.8), rel=1e-4)


def test_choices_against_draws() -> None:
    """Each curator's shares against 200,000 prompts of candidates, ties included: within four standard errors."""
    rng = np.random.default_rng(0)
    rewards = np.array([0.0, 1.0, 1.0, -1.0, 0.5, 2.0, 0.5, 0.0])
    drawn = rng.choice(8, (200_000, 3), p=P)
    noise = {ODDS: rng.gumbel(size=drawn.shape), BEST: 1e-6 * rng.random(drawn.shape)}
    for selector, extra in noise.items():
        picked = drawn[np.arange(len(drawn)), np.argmax(rewards[drawn] + extra, axis=1)]
        measured = np.bincount(picked, minlength=8) / len(drawn)
        found = chosen(P, rewards, case(selection=(selector,), candidates=3))
        assert np.all(np.abs(found - measured) < 4 * np.sqrt(found * (1 - found) / len(drawn)) + 1e-9)
    best = chosen(P, rewards, case(selection=(Selector("top", 0.25),), candidates=3))
    assert best == pytest.approx([0, 0.2 * 0.2 / 0.35 / 0.25, 0.2 * 0.15 / 0.35 / 0.25, 0, 0, 0.05 / 0.25, 0, 0])


@pytest.mark.parametrize(
    ("policy", "real", "lam"),
    [("replace", 60, 2.0), ("accumulate", 60, None), ("accumulate", 60, 3.0), ("accumulate_subsample", 60, None),
     ("fresh", 60, 2.0)],
)
def test_shares_against_a_simulated_learner(policy: str, real: int, lam: float | None) -> None:
    """The mean of Σp² over 400 learners: within four standard errors and 3%, as the chance is of first order."""
    rng = np.random.default_rng(1)
    asked = case(policy, n=50, real=real, lam=lam, rounds=10)
    model = np.tile(P, (400, 1))
    pool = np.zeros_like(model)
    for number in range(1, 11):
        synthetic, newest = parts(asked, number)
        pool = (1 - newest) * pool + newest * rng.multinomial(50, model) / 50
        data = rng.multinomial(real, P, 400) / real if policy == "fresh" else P
        model = (1 - synthetic) * data + synthetic * pool
        if policy == "accumulate_subsample":
            counts = np.rint(model * (real + 50 * number)).astype(int)
            model = np.array([rng.multivariate_hypergeometric(row, real) / real for row in counts])
    measured = np.sum(model**2, axis=1)
    expected = float(np.sum(P**2)) / diversity_left(asked, DiscreteLearner(P), 10)[-1]
    assert abs(measured.mean() - expected) < 4 * measured.std() / 20 + 0.03 * expected


def test_a_curated_gaussian_against_a_simulated_one() -> None:
    """λ = 1, K = 4, an off-centre bump as reward: the mean log spread of 40 learners, within 4 errors and 2%."""
    rng = np.random.default_rng(2)

    def reward(x: np.ndarray) -> np.ndarray:
        return np.asarray(3 * np.exp(-((x - 1.0) ** 2).sum(axis=-1) / 2))

    asked = case(n=200, real=10_000, lam=1.0, selection=(ODDS,), candidates=4, rounds=6)
    logs = []
    for _ in range(40):
        mean, cov = np.zeros(2), np.eye(2)
        for _ in range(6):
            drawn = mean + rng.standard_normal((200, 4, 2)) @ np.linalg.cholesky(cov).T
            pick = np.argmax(reward(drawn) + rng.gumbel(size=(200, 4)), axis=1)
            made = drawn[np.arange(200), pick]
            gap = made.mean(axis=0)
            cov = (np.eye(2) + np.cov(made.T, bias=True)) / 2 + np.outer(gap, gap) / 4
            mean = gap / 2
        logs.append(np.linalg.slogdet(cov)[1] / 4)
    found = math.log(diversity_left(asked, GaussianLearner(np.zeros(2), np.eye(2), reward), 6)[-1])
    assert abs(np.mean(logs) - found) < 4 * np.std(logs) / math.sqrt(40) + 0.02


def test_kinds_and_words() -> None:
    assert [theory.kind_of(kept) for kept in (1.0, 0.9, 0.89, 0.5, 0.49, 0.0, 1.2, 2.5)] == [
        "stable", "stable", "drifts", "drifts", "collapses", "collapses", "drifts", "collapses"
    ]
    start = GaussianLearner(np.zeros(4), np.eye(4))
    gone = theory.verdict("replace", synthetic=12, real=0, rounds=20, start=start)
    assert gone.kind == "collapses" and gone.word.startswith("collapses in about") and gone.half_life < 20
    held = theory.verdict("replace", synthetic=500, real=500, rounds=20, lam=1.0, start=start)
    assert (held.kind, held.word) == ("stable", "stable") and 0.9 < held.kept <= 1
    assert held.statements[-1].numbers["kept"] == held.kept
    away = theory.verdict("replace", synthetic=500, real=500, rounds=20, lam=20.0, temperature=0.8, start=start)
    assert (away.kind, away.word, away.half_life) == ("collapses", "settles away from the data", math.inf)
    few = pytest.raises(ValueError, match="cannot give a covariance in 4 dimensions")
    with few:
        theory.verdict("replace", synthetic=4, real=0, rounds=2, start=start)


def test_picks_follow_the_odds_and_real_data_stabilise_them() -> None:
    """One selection law for `picked` and `choice`; with real data in every round no collapse is predicted."""
    loop = {"synthetic": 200, "real": 1000, "rounds": 3, "candidates": 4}
    picked = theory.verdict("replace", lam=1.0, selection=[PICKED], **loop)
    assert picked.kept == theory.verdict("replace", lam=1.0, selection=[ODDS], **loop).kept
    assert picked.kept > theory.verdict("replace", lam=1.0, selection=[BEST], **loop).kept
    assert (picked.kind, picked.word) == ("drifts", "settles away from the data")
    for selector in (ODDS, PICKED, BEST):
        found = theory.verdict("replace", lam=4.0, selection=[selector], **loop)
        assert found.kind == "collapses" and found.word == "settles away from the data"
        assert not any("collapses" in said.text for said in found.statements)
    nothing_real = theory.verdict("replace", selection=[PICKED], **{**loop, "real": 0})
    assert nothing_real.word.startswith("collapses") and "it collapses" in nothing_real.statements[-1].text
    pooled = theory.verdict("accumulate", selection=[BEST], **{**loop, "synthetic": 5000, "rounds": 20})
    assert "it collapses" in pooled.statements[-1].text  # the real share of a growing pool shrinks: it holds nothing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lam", "temperature", "kind"), [("0.2", 1.0, "stable"), (".inf", 1.0, "drifts"), (".inf", 0.8, "collapses")]
)
def test_the_plan_foresees_what_a_real_run_does(tmp_path: Path, lam: str, temperature: float, kind: str) -> None:
    """The whole loop, gate off, on a Gaussian: the class foreseen before the run is the one measured after it."""
    from safetensors.numpy import load_file

    settings = (f"rounds.mix.lambda={lam}", "gate=null", "rounds.count=6", "rounds.sample.candidates=4",
                f"rounds.sample.settings={{temperature: {temperature}}}",
                "rounds.score={name: closeness, to: [4.0, 0.0], width: 1.5, height: 3.0}")
    asked = small(GAUSSIAN, *settings)
    found = plan.plan(asked).theory
    assert found is not None
    run = loop.run(asked, tmp_path)

    def spread(unit: str) -> float:
        return math.exp(float(np.diagonal(load_file(run.unit(unit) / "model" / "model.safetensors")["factor"]).mean()))

    measured = spread("rounds/006") / spread("rounds/000")
    assert theory.kind_of(measured) == found.kind == kind
    assert abs(math.log(measured / found.kept)) < 0.35
