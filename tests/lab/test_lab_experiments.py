"""The closed-form and fast experiments of the lab: theory and simulation agree, and a wrong formula is found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.lab_runs import failed, lab, path
from upturn import seeds, theory
from upturn.lab.experiments import _curated_exact as exact
from upturn.lab.experiments import _guided_gaussians as guided

pytestmark = pytest.mark.slow

SMALL: dict[str, dict[str, Any]] = {
    "categorical": {"rounds": 10, "replicas": 500},
    "regression": {"n": [20], "rounds": 5, "replicas": 300},
    "kde": {"n": [30], "rounds": 5, "replicas": 2000},
    "mixture": {"n": [50], "rounds": 2, "replicas": 100},
    "verifier": {"n": 2000, "rounds": 4, "replicas": 20, "noise": [1.0], "candidates": [2.0, math.inf]},
    "downstream": {"replicas": 300, "made": [0.0, 1.0, 5.0], "share": [0.2, 0.05], "unlabelled": [0.0, 10.0]},
    "sampling": {
        "rounds": 3, "replicas": 200, "each": 300, "guidance": [2.0], "temperature": [0.9], "top_p": [0.9],
    },
    "curation": {
        "cases": 300, "candidates": [2, 4], "chosen_of": [4], "n": 100, "rounds": 3, "replicas": 4, "data": ["mixture"],
        "reward": ["point"], "part": ["bounds", "classes", "sampled"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_theory_and_simulation_agree(tmp_path: Path, name: str) -> None:
    result = lab(tmp_path, name, **SMALL[name])
    assert result["agree"], failed(result)
    assert result["tested"] > 10
    assert result["sentences"] or name in ("categorical", "regression", "kde", "mixture")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "wrong", "formula", "settings"),
    [
        ("verifier", "verified_rounds", "verified_rounds", {"n": 20_000, "candidates": [math.inf]}),
        ("curation", "mixed_update", "mixed_update", {"part": ["classes"], "replicas": 20}),
        ("sampling", "tempered_shares", "tempered_shares", {"guidance": []}),
        ("downstream", "added_mean_error", "added_mean_error", {"replicas": 10_000}),
    ],
)
def test_a_wrong_formula_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str, formula: str, settings: dict[str, Any]
) -> None:
    """Theory that is two percent off."""
    true = getattr(theory, wrong)
    monkeypatch.setattr(theory, wrong, lambda *a, **k: np.asarray(true(*a, **k)) * 1.02)
    result = lab(tmp_path, name, **{**SMALL[name], **settings})
    assert formula in {row["formula"] for row in failed(result)}


def test_a_bound_that_does_not_hold_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The growth bound without its factor (K-1)/K holds in many cases, not in all."""
    true = theory.growth_bound
    monkeypatch.setattr(
        theory, "growth_bound", lambda p, r, k: (b := (p * np.exp(r)).sum(axis=1)) + (true(p, r, k) - b) * k / (k - 1)
    )
    result = lab(tmp_path, "curation", part=["bounds"], cases=200, candidates=[2], rounds=3)
    assert {row["formula"] for row in failed(result)} == {"growth"}
    broken = path(result, f"{exact.BROKEN}: growth")[3]
    assert 0 < broken["simulation"] < broken["count"]


def test_the_rlhf_optimum_is_the_tilt_of_its_own_beta_only() -> None:
    p, r = np.array([0.2, 0.5, 0.3]), np.array([0.0, 1.0, -1.0])
    found = exact.optimum(p, r, 0.5)
    assert found == pytest.approx(theory.tilted(p, r, 2.0), abs=1e-6)
    assert np.abs(found - theory.tilted(p, r, 1.0)).sum() > 0.1


def test_guidance_of_one_gives_the_classes_back_and_more_parts_them() -> None:
    """Exact at scale 1: the ODE's image of a normal is the class itself, to the error of the steps."""
    start = guided.Classes(np.array([[-1.0, 1.0]]), np.array([[0.49, 0.49]]))
    same = guided.limit(1.0, start, 1)[0]
    assert same.means == pytest.approx(start.means, abs=0.01)
    assert same.variances == pytest.approx(start.variances, rel=0.003)
    more = guided.limit(3.0, start, 1)[0]
    assert more.means[0, 1] > 1.1 and more.variances.max() < 0.4


def test_two_classes_are_chosen_as_single_candidates_are() -> None:
    """One round of the grouped draws against drawing every candidate: mean and variance over 4,000 replicas."""
    from upturn.lab.experiments import _curated_samples as samples

    rng, k, n, gap = seeds.generator(seeds.key("test classes")), 4, 50, 1.0
    row = next(iter(samples.favoured(rng, 0, k, math.inf, gap, n, 4000, 1)))
    good = rng.random((4000, n, k)) < 0.5
    reward = np.where(good, gap / 2, -gap / 2) + rng.gumbel(size=good.shape)
    won = np.take_along_axis(good, reward.argmax(axis=2)[:, :, None], axis=2).mean(axis=(1, 2))
    assert row.simulation == pytest.approx(won.mean(), abs=4 * math.sqrt(2) * row.standard_error)
    # a standard deviation from 4,000 replicas is known to 1/sqrt(8000)
    assert row.standard_error * math.sqrt(4000) == pytest.approx(won.std(), rel=4 * math.sqrt(2 / 8000))
