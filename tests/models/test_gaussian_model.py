"""Tests of the Gaussian model against scipy, numpy, finite differences and theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import model_contract as contract
from upturn import seeds
from upturn.errors import UserError
from upturn.models.gaussian import Gaussian, GaussianSampling
from upturn.protocols import ClosedForm
from upturn.types import Prompt, Samples, real_samples

COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])


def points(n: int, d: int = 3, key: int = 1) -> Samples:
    rows = seeds.generator(key).multivariate_normal(MEAN, COVARIANCE, n)[:, :d]
    return real_samples("points", rows.astype(np.float32), [Prompt()] * n, "points")


def fitted(samples: Samples, weights: np.ndarray | None = None, **fields: str) -> Gaussian:
    model = Gaussian(**fields)  # type: ignore[arg-type]
    model.fit(samples, np.ones(len(samples)) if weights is None else weights)
    return model


def covariance(model: Gaussian) -> np.ndarray:
    factor = model.module.cholesky().detach().double().numpy()  # type: ignore[operator]
    return factor @ factor.T


@pytest.mark.parametrize("d", [1, 3])
def test_contract(d: int, tmp_path: Path) -> None:
    contract.assert_policy_contract(Gaussian, points(40, d), [Prompt()] * 4, tmp_path)


@pytest.mark.parametrize(("division", "ddof"), [("n", 0), ("n-1", 1)])
def test_the_fit_is_numpys_weighted_covariance(division: str, ddof: int) -> None:
    samples = points(50)
    weights = seeds.generator(2).random(50)
    for w, scale in ((np.ones(50), 1.0), (weights, 1.0), (weights, 1000.0)):
        model = fitted(samples, w * scale, division=division)
        mean = np.average(samples.content, axis=0, weights=w)
        np.testing.assert_allclose(model.module.mean.detach(), mean, rtol=1e-5)
        expected = np.cov(samples.content.astype(np.float64).T, aweights=w, ddof=ddof)
        np.testing.assert_allclose(covariance(model), expected, rtol=1e-5, atol=1e-6)
    assert isinstance(Gaussian(), ClosedForm)


def test_a_point_of_weight_zero_is_ignored() -> None:
    samples = points(50)
    weights = np.repeat([1.0, 0.0], [30, 20])
    np.testing.assert_allclose(
        covariance(fitted(samples, weights, division="n-1")),
        np.cov(samples.content[:30].astype(np.float64).T), rtol=1e-5, atol=1e-6,
    )


def test_log_probs_are_scipys() -> None:
    samples = points(200)
    model = fitted(samples)
    expected = stats.multivariate_normal(samples.content.astype(np.float64).mean(axis=0), covariance(model))
    out = model.forward(model.encode(samples), None)
    assert out.log_probs.shape == out.mask.shape == (200, 1) and out.dims == 3
    np.testing.assert_allclose(out.log_probs[:, 0].detach(), expected.logpdf(samples.content), rtol=1e-4, atol=1e-4)


def test_gradients_are_finite_differences() -> None:
    samples = points(20)
    model = fitted(samples)
    model.module.double()
    batch = model.encode(samples)
    rows = batch["points"].double()

    def total() -> torch.Tensor:
        return model.module(rows).sum()

    with torch.no_grad():  # off the maximum, where gradients would vanish
        for parameter in model.module.parameters():
            parameter.add_(0.1)
    total().backward()
    step = 1e-6
    for parameter in model.module.parameters():
        assert parameter.grad is not None
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            flat[i] += step
            above = total().item()
            flat[i] -= 2 * step
            below = total().item()
            flat[i] += step
            assert gradient[i].item() == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5)


def test_gradient_ascent_arrives_at_the_closed_form() -> None:
    samples = points(300)
    exact, model = fitted(samples), Gaussian()
    model.build(samples, 1)
    optimiser = torch.optim.LBFGS(model.module.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    batch = model.encode(samples)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = -model.forward(batch, None).log_probs.mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    np.testing.assert_allclose(covariance(model), covariance(exact), rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_have_the_moments_of_the_model(temperature: float) -> None:
    """20,000 draws: five standard errors of a mean (s/√n) and of a covariance (√((Σᵢⱼ² + ΣᵢᵢΣⱼⱼ)/n))."""
    model, n = fitted(points(500)), 20_000
    keys = seeds.fold(3, range(n)).reshape(100, 200)
    settings = GaussianSampling(temperature=temperature)
    made = model.sample([Prompt()] * 100, keys, settings).content.astype(np.float64)
    expected = covariance(model) * temperature**2
    variance = np.diagonal(expected)
    error = np.abs(made.mean(axis=0) - model.module.mean.detach().numpy())
    assert (error <= 5 * np.sqrt(variance / n)).all()
    spread = np.sqrt((expected**2 + np.outer(variance, variance)) / n)
    assert (np.abs(np.cov(made.T) - expected) <= 5 * spread).all()


def test_rollouts_carry_the_density_that_was_drawn_from() -> None:
    model = fitted(points(100))
    keys = seeds.fold(3, range(12)).reshape(4, 3)
    for temperature in (1.0, 0.7):
        rollout = model.rollout([Prompt()] * 4, keys, GaussianSampling(temperature))
        drawn_from = stats.multivariate_normal(
            model.module.mean.detach().double().numpy(), covariance(model) * temperature**2
        )
        np.testing.assert_allclose(
            rollout.log_probs[:, 0], drawn_from.logpdf(rollout.actions[:, 0].double()), rtol=1e-4, atol=1e-4
        )
    again = model.forward(model.encode(model.rollout([Prompt()] * 4, keys, GaussianSampling()).samples), None)
    plain = model.rollout([Prompt()] * 4, keys, GaussianSampling())
    torch.testing.assert_close(again.log_probs.detach(), plain.log_probs, rtol=1e-4, atol=1e-4)


def test_a_row_depends_on_its_key_alone() -> None:
    model = fitted(points(100))
    keys = seeds.fold(3, range(60))
    whole = model.sample([Prompt()] * 60, keys[:, None], GaussianSampling()).content
    for size in (1, 7, 64):
        parts = model.sample([Prompt()] * 60, keys[:, None], GaussianSampling(batch=size)).content
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_retraining_shrinks_as_theory_says() -> None:
    """Division by n, replace: E[σ²_t] = (1 - 1/n)^t; 250 replicas, n = 10, t = 3, four standard errors."""
    n, replicas, finals = 10, 250, []
    model = Gaussian()
    like = points(n, 1)
    for replica in range(replicas):
        rows = seeds.normal(seeds.fold(50, range(replica * n, (replica + 1) * n)), (1,)).numpy()
        samples = samples_of(like, rows)
        for t in range(3):
            model.fit(samples, np.ones(n))
            if t < 2:
                keys = seeds.fold(seeds.key("retrain", replica, t), range(n))
                samples = samples_of(like, model._drawn(keys, GaussianSampling())[0].numpy())
        finals.append(float(covariance(model)[0, 0]))
    error = float(np.std(finals)) / np.sqrt(replicas)
    assert abs(np.mean(finals) - (1 - 1 / n) ** 3) <= 4 * error


def samples_of(like: Samples, rows: np.ndarray) -> Samples:
    return Samples(
        "points", like.ids, like.prompts, rows, like.origin, like.source, like.group, like.candidate, like.fields
    )


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"3 points cannot give a covariance in 3 dimensions.*at least 4"):
        fitted(points(3))
    flat = real_samples("points", np.ones((9, 2), np.float32), [Prompt()] * 9, "flat")
    with pytest.raises(UserError, match="lie in less than 2 dimensions"):
        fitted(flat)
    with pytest.raises(UserError, match="negative nor all 0"):
        fitted(points(5), np.zeros(5))
    broken = real_samples("points", np.array([[1.0, np.nan], [0, 0]], np.float32), [Prompt()] * 2, "broken")
    with pytest.raises(UserError, match="1 of 2 points are not finite"):
        Gaussian().build(broken, 1)
    with pytest.raises(UserError, match="reads points, and these samples are text"):
        Gaussian().build(real_samples("text", ["a"], [Prompt()], "t"), 1)
    with pytest.raises(ValueError, match="above 0"):
        GaussianSampling(temperature=0.0)


def test_a_damaged_file(tmp_path: Path) -> None:
    model = fitted(points(50))
    model.save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        Gaussian().load(tmp_path)
