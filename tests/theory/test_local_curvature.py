"""Tests of the curvature at round 0 and its slope against second differences and exponential families."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.small_recipes import GAUSSIAN, POINTS, small
from upturn.loop import loop
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.studies.curvature import local_curvature
from upturn.studies.loop_estimates import estimate

pytestmark = pytest.mark.slow


def _loss(theta: np.ndarray, points: np.ndarray) -> float:
    """Mean -log p of a Gaussian in the plane: means, then l11, l21, l22, the diagonal as logarithms."""
    factor = np.array([[math.exp(theta[2]), 0.0], [theta[3], math.exp(theta[4])]])
    white = np.linalg.solve(factor, (points - theta[:2]).T)
    return float(0.5 * (white**2).sum(axis=0).mean() + theta[2] + theta[4] + math.log(2 * math.pi))


def _differences(theta: np.ndarray, points: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """(5, 5) second derivatives by central differences; their error is of the order of 1e-7."""
    eye = np.eye(len(theta)) * step
    return np.array([
        [
            (_loss(theta + a + b, points) - _loss(theta + a - b, points) - _loss(theta - a + b, points)
             + _loss(theta - a - b, points)) / (4 * step**2)
            for b in eye
        ]
        for a in eye
    ])


@pytest.mark.long
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_a_gaussian_against_differences_and_its_exact_slope(tmp_path: Path, lam: float) -> None:
    """Any exponential family contracts by λ/(1+λ), also on data that are no Gaussian."""
    recipe = small(GAUSSIAN, f"rounds.mix.lambda={lam}", "rounds.count=1", "gate=null", "evaluate.prompts=500")
    loop.run(recipe, tmp_path)
    run = Run.open(tmp_path / "gaussian")
    found = estimate(run)["curvature"]
    real = parquet_tables.read_samples(run.unit("data") / "samples.parquet")
    train = real.take(real.fields["split"].astype(str) == "train")
    rows = np.linspace(0, len(train) - 1, found["samples"]).round().astype(int)
    kept = load_file(run.unit("rounds/000") / "model" / "model.safetensors")
    factor = kept["factor"].astype(float)
    theta = np.array([*kept["mean"].astype(float), factor[0, 0], factor[1, 0], factor[1, 1]])
    truth = np.linalg.eigvalsh(_differences(theta, np.asarray(train.content, dtype=float)[rows]))
    assert (found["parameters"], found["unused"], found["likelihood"]) == (6, 1, "exact")
    assert found["least"]["value"] == pytest.approx(truth[0], rel=1e-4)
    assert found["greatest"]["value"] == pytest.approx(truth[-1], rel=1e-4)
    assert found["least"]["low"] < truth[0] < found["least"]["high"]
    slope = found["slope"]
    wide = 2 * (slope["high"] - slope["low"]) / 2  # 4 standard errors, twice the half-width of a 95% interval
    assert abs(slope["value"] - lam / (1 + lam)) < wide < 0.5


@pytest.mark.long
def test_a_saddle_and_a_run_without_real_data_have_no_slope(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the mean off by δ > σ the Hessian in (mean, log σ) has the determinant 2(σ² - δ²)/σ⁴ < 0: no optimum."""
    from upturn.cli import app

    loop.run(small(GAUSSIAN, "rounds.count=1", "gate=null"), tmp_path)
    run = Run.open(tmp_path / "gaussian")
    assert "λ is infinite" in local_curvature(run, math.inf)["slope"]["note"]
    app(["estimate", "gaussian", "--runs", str(tmp_path)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "The least is α, above 0" in said and "1 change nothing" in said
    app(["estimate", "gaussian", "--runs", str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["curvature"]["slope"]["value"] > 0
    weights = run.unit("rounds/000") / "model" / "model.safetensors"
    kept = load_file(weights)
    save_file(kept | {"mean": kept["mean"] + 10}, weights)
    app(["estimate", "gaussian", "--runs", str(tmp_path)], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "The least is below 0: no strict optimum" in said
    assert "these weights are no strict optimum" in local_curvature(run, 1.0)["slope"]["note"]


@pytest.mark.long
def test_models_that_are_too_large_or_without_likelihood_give_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from upturn.cli import app

    loop.run(small(POINTS, "rounds.count=1", "gate=null", "stages=[{name: pretrain, steps: 5}]",
                   "models.policy.network={name: mlp, width: 8, depth: 1, embedding: 8}"), tmp_path)
    found = estimate(Run.open(tmp_path / "points"))["curvature"]
    assert found["likelihood"] == "surrogate" and found["parameters"] <= 2000
    assert found["least"]["value"] < found["greatest"]["value"]
    assert "log-probs are surrogate" in found["slope"]["note"]
    loop.run(small(POINTS, "rounds.count=1", "gate=null", "stages=[{name: pretrain, steps: 5}]", "name=wide"), tmp_path)
    app(["estimate", "wide", "--runs", str(tmp_path)], standalone_mode=False)
    count = estimate(Run.open(tmp_path / "wide"))["curvature"]["parameters"]
    assert count > 2000
    assert f"the model has {count:,} parameters; exact up to 2,000" in " ".join(capsys.readouterr().out.split())
