"""Tests of the gate: null runs are promoted at most at the stated rate, improvements are promoted, guards hold."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from upturn.errors import UserError
from upturn.loop import gate
from upturn.types import Measurement

pytestmark = pytest.mark.slow

BETTER = {"reward": "higher", "loss": "lower", "shares": "neither", "frechet": "lower", "coverage": "higher"}
ALPHA, ROUNDS, RUNS = 0.05, 5, 200


def values(rows: np.ndarray) -> dict[str, Measurement]:
    return {"reward": Measurement(float(np.nanmean(rows)), math.nan, math.nan, len(rows), rows)}


def interval(name: str, value: float, half: float) -> dict[str, Measurement]:
    return {name: Measurement(value, value - half, value + half, 100)}


def a_run(seed: int, gain: float, prompts: int = 60, candidates: int = 2) -> list[str]:
    """Five rounds, each against the newest promoted one; prompts and noise are shared, as in a real run."""
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(prompts), candidates)
    hardness = draw.standard_normal((prompts, 1))

    def model(quality: float) -> np.ndarray:
        own = 0.5 * draw.standard_normal((prompts, 1)) + 0.5 * draw.standard_normal((prompts, candidates))
        return (hardness + own + quality).ravel()

    quality, decisions = 0.0, []
    anchor = incumbent = values(model(0.0))
    for number in range(1, ROUNDS + 1):
        new = values(model(quality + gain))
        found = gate.decide(
            "reward", new, incumbent, anchor, better=BETTER, alpha=gate.spend(ALPHA, ROUNDS, number),
            key=1000 * seed + number, clusters=groups,
        )
        decisions.append(found.decision)
        if found.decision == "promoted":
            incumbent, quality = new, quality + gain
    return decisions


def test_null_runs_are_promoted_at_most_at_the_stated_share():
    false = sum("promoted" in a_run(seed, 0.0) for seed in range(RUNS))
    # 3 binomial standard errors of 200 runs at 5%: 4.6 points
    assert false / RUNS <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)


def test_without_spending_null_runs_would_be_promoted_far_more_often(monkeypatch):
    monkeypatch.setattr(gate, "spend", lambda alpha, rounds, number: alpha)
    false = sum("promoted" in a_run(seed, 0.0) for seed in range(80))
    assert false / 80 > 0.09  # 1 - 0.95^5 = 0.226 for independent tests; 3 standard errors at 80 runs are 0.14


def test_planted_improvement_is_promoted():
    # a prompt's difference has standard deviation 0.87, so 60 prompts see 0.5 at 4.5 errors; level 0.01 needs 2.33:
    # power 0.98 by the normal approximation, and 0.9 is 4 binomial standard errors below it at 40 runs
    first = sum(a_run(seed, 0.5)[0] == "promoted" for seed in range(40))
    assert first / 40 >= 0.9


def test_rounds_that_are_worse_are_never_promoted():
    assert all("promoted" not in a_run(seed, -0.3) for seed in range(20))


@pytest.mark.parametrize("plan", ["equal", "open"])
def test_alpha_is_spent_and_never_overspent(plan):
    shares = [gate.spend(0.05, 12, number, plan) for number in range(1, 13)]
    assert sum(shares) <= 0.05 + 1e-12
    assert min(shares) > 0
    for number in (0, 13):
        if plan == "equal" or number == 0:
            with pytest.raises(ValueError, match="no share of alpha"):
                gate.spend(0.05, 12, number, plan)


def test_open_plan_sums_to_alpha_for_an_endless_run():
    assert sum(gate.spend(0.05, 0, number, "open") for number in range(1, 100_001)) == pytest.approx(0.05, rel=1e-4)


def rows(shift: float, n: int = 60) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n) + shift


def test_lower_is_better_where_the_metric_declares_it():
    old, new = {"loss": Measurement(1, 0.9, 1.1, 60, rows(1.0))}, {"loss": Measurement(0, 0, 0, 60, rows(0.5))}
    found = gate.decide("loss", new, old, old, better=BETTER, alpha=0.05, key=1)
    assert found.decision == "promoted"
    assert found.difference == pytest.approx(-0.5)
    assert found.low <= found.difference <= found.high < 0
    assert gate.decide("loss", old, new, old, better=BETTER, alpha=0.05, key=1).decision == "rejected"


def test_clusters_of_another_length_are_ignored():
    old, new = {"loss": Measurement(1, 0.9, 1.1, 60, rows(1.0))}, {"loss": Measurement(0, 0, 0, 60, rows(0.5))}
    assert gate.decide("loss", new, old, old, better=BETTER, alpha=0.05, key=1, clusters=np.arange(9)).p < 0.001


def test_equal_models_are_rejected_with_p_1():
    same = values(rows(0.0))
    found = gate.decide("reward", same, same, same, better=BETTER, alpha=0.05, key=1)
    assert (found.decision, found.p) == ("rejected", 1.0)
    assert "equal values on every sample" in found.reason


def test_too_few_prompts_are_named():
    found = gate.decide("reward", values(rows(9.0, 3)), values(np.zeros(3)), {}, better=BETTER, alpha=0.01, key=1)
    assert found.decision == "rejected"
    assert "only 3 prompts differ, whose least p is 0.12" in found.reason


def test_unscored_pairs_are_left_out_and_counted():
    mine = rows(1.0)
    mine[:7] = math.nan
    found = gate.decide("reward", values(mine), values(rows(0.0)), {}, better=BETTER, alpha=0.01, key=1)
    assert found.decision == "promoted"
    assert "7 of 60 pairs left out, unscored" in found.reason


def test_an_undefined_metric_rejects_with_its_reason():
    silent = {"reward": Measurement(math.nan, math.nan, math.nan, 5, note="no sample was scored")}
    found = gate.decide("reward", silent, values(rows(0.0)), {}, better=BETTER, alpha=0.05, key=1)
    assert found.decision == "rejected"
    assert "reward of the new model is not known: no sample was scored" in found.reason
    missing = gate.decide("reward", values(rows(0.0)), {}, {}, better=BETTER, alpha=0.05, key=1)
    assert "of the incumbent is not known: it was not measured" in missing.reason
    with pytest.raises(UserError, match="neither better higher nor lower"):
        gate.decide("shares", {}, {}, {}, better=BETTER, alpha=0.05, key=1)


@pytest.mark.parametrize(
    ("new", "alpha", "decision"),
    # incumbent 10 +- 1, new +- 1: disjoint at 95% below 8; at level 0.001 (z = 3.09) the gap must be 2 * 3.09 / 1.96
    [(8.1, 0.05, "rejected"), (7.9, 0.05, "promoted"), (7.9, 0.001, "rejected"), (6.8, 0.001, "promoted")],
)
def test_without_values_intervals_must_not_overlap(new, alpha, decision):
    old = interval("frechet", 10.0, 1.0)
    found = gate.decide("frechet", interval("frechet", new, 1.0), old, old, better=BETTER, alpha=alpha, key=1)
    assert found.decision == decision
    assert (found.p <= alpha) == (decision == "promoted") or alpha > 0.025  # never laxer than 95% intervals


def test_intervals_keep_the_level_even_under_the_worst_dependence():
    """Errors of new and incumbent exactly opposed: the hardest case for comparing intervals."""
    draw = np.random.default_rng(1)
    hits = 0
    for _ in range(4000):
        error = draw.standard_normal()
        new, old = interval("coverage", error, 1.96), interval("coverage", -error, 1.96)
        hits += gate.decide("coverage", new, old, {}, better=BETTER, alpha=0.01, key=1).decision == "promoted"
    assert hits / 4000 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)
    assert hits > 0  # and it is not so strict that the case could never arise


def test_no_interval_no_promotion():
    bare = {"frechet": Measurement(1.0, math.nan, math.nan, 9)}
    found = gate.decide("frechet", bare, interval("frechet", 10, 1), {}, better=BETTER, alpha=0.05, key=1)
    assert found.decision == "rejected"
    assert "no interval" in found.reason


# --- guards ------------------------------------------------------------------------------------------------------


def guarded(coverage: float, anchor: float, limits: dict[str, float], note: str = "") -> gate.Decision:
    new = values(rows(1.0)) | {"coverage": Measurement(coverage, 0, 1, 100, note=note)}
    old = values(rows(0.0)) | {"coverage": Measurement(0.1, 0, 1, 100)}
    fixed = {"coverage": Measurement(anchor, 0, 1, 100)}
    return gate.decide("reward", new, old, fixed, better=BETTER, alpha=0.05, key=1, guards={"coverage": limits})


@pytest.mark.parametrize(
    ("coverage", "limits", "holds"),
    [
        (0.72, {"at_least": 0.9}, True), (0.71, {"at_least": 0.9}, False), (0.88, {"at_most": 1.1}, True),
        (0.89, {"at_most": 1.1}, False), (0.5, {"floor": 0.5}, True), (0.49, {"floor": 0.5}, False),
        (0.31, {"ceiling": 0.3}, False), (0.75, {"at_least": 0.9, "ceiling": 0.7}, False),
    ],
)
def test_guards_hold_against_the_anchor_not_the_incumbent(coverage, limits, holds):
    found = guarded(coverage, 0.8, limits)
    assert found.decision == ("promoted" if holds else "rejected")
    assert all(result.holds for result in found.guards) == holds
    assert len(found.guards) == len(limits)
    assert found.p < 0.05  # the gain itself is significant in every case
    if not holds:
        assert "but coverage" in found.reason


def test_a_ratchet_is_caught():
    """Each round may lose 5% to the last: against round 0 the guard at 0.9 stops the third."""
    decisions = [guarded(0.8 * 0.95**number, 0.8, {"at_least": 0.9}).decision for number in (1, 2, 3)]
    assert decisions == ["promoted", "promoted", "rejected"]


def test_an_undefined_guard_rejects():
    found = guarded(math.nan, 0.8, {"at_least": 0.9}, note="3 held-out samples")
    assert found.decision == "rejected"
    assert "coverage is not known: 3 held-out samples" in found.reason
    assert "of the anchor is not known" in guarded(0.8, math.nan, {"at_least": 0.9}).reason
    assert "share of a negative number" in guarded(-1.0, -1.0, {"at_least": 0.9}).reason
    assert guarded(0.8, math.nan, {"floor": 0.5}).decision == "promoted"


def test_a_guard_is_checked_when_it_is_read():
    with pytest.raises(UserError, match="no limit 'at_leats'"):
        gate.guard("coverage", {"at_leats": 0.9})
    with pytest.raises(UserError, match="has no limit"):
        gate.guard("coverage", {})


def test_decisions_are_json_and_the_same_again():
    cases = [guarded(0.7, 0.8, {"at_least": 0.9}), guarded(math.nan, math.nan, {"at_least": 1.0})]
    for found in cases:
        json.dumps(asdict(found), allow_nan=False)
    assert guarded(0.7, 0.8, {"at_least": 0.9}) == cases[0]
