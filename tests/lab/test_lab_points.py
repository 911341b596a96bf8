"""Stacked models are the single ones, step for step; the measures of a shape; the experiment goes on where it was."""

from __future__ import annotations

import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from helpers.lab_runs import lab, path
from upturn import seeds, theory
from upturn.config.schema import Training
from upturn.diffusion.denoiser import denoised
from upturn.diffusion.samplers.dpmpp_2m import Dpmpp2m
from upturn.lab import experiment_runner, stacked_diffusion
from upturn.lab.experiments import _point_shapes as shapes
from upturn.lab.stacked_diffusion import Pool, Stack
from upturn.training.ema import Ema
from upturn.training.schedule import learning_rate

pytestmark = pytest.mark.slow

SPEC = Training(steps=5, batch_size=16, learning_rate=1e-2, ema=0.9, clip=0.05)  # a norm that is reached
KEYS, NETWORK = [3, 4], {"name": "mlp", "width": 8, "depth": 1}


def pool(lam: float, n: int = 40) -> Pool:
    source = seeds.generator(seeds.key("test points"))
    points = source.standard_normal((2, 2 * n, 2), dtype=np.float32) * 3 + 1
    return Pool(torch.from_numpy(points), n, stacked_diffusion.levels([lam, lam]))


@pytest.mark.parametrize("formulation", ["edm", "flow", "epsilon"])
def test_a_stack_trains_and_samples_as_each_of_its_models_alone(formulation: str) -> None:
    """Against a plain loop over one network with torch's own optimiser, clipping and the same draws."""
    of, data = Stack(KEYS, 2, network=NETWORK, formulation=formulation), pool(0.5)
    of.train(data, KEYS, SPEC)
    made = of.sample(7, KEYS, 6)
    for i, key in enumerate(KEYS):
        seeds.seed_torch(key)
        net, form = of.net, of.form
        module = net.make((2,), 0, form.noise_range())
        parameters = list(module.parameters())
        optimizer, average = torch.optim.AdamW(parameters, weight_decay=0.0), Ema(parameters, SPEC.ema)
        points = (data.points[i] - of.mean[i]) / of.scale[i]
        draw = stacked_diffusion._Draws(key, data, float(data.share[i]), SPEC.batch_size).block()
        picked, u, noise = (torch.from_numpy(part) for part in draw)
        label = torch.full((SPEC.batch_size,), -1)
        for step in range(5):
            optimizer.param_groups[0]["lr"] = learning_rate(SPEC, step, 5)
            x0, sigma = points[picked[step]], form.training_sigma(u[step])
            x = x0 + sigma[:, None] * noise[step]
            gap = denoised(net, module, form, x, sigma, {"label": label}) - x0
            loss = (0.5 * form.weight(sigma) * gap.square().mean(dim=1)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, SPEC.clip)
            optimizer.step()
            average.update(step + 1)
        average.copy_to_model()
        for name, parameter in module.named_parameters():
            assert of.parameters[name][i].detach().numpy() == pytest.approx(parameter.detach().numpy(), abs=2e-5), name
        start = torch.from_numpy(seeds.generator(key).standard_normal((7, 2), dtype=np.float32))
        sigmas = form.sigmas(6)
        with torch.inference_mode():
            single = partial(denoised, net, module, form, condition={"label": label[:7]})
            run = Dpmpp2m()(single, start * sigmas[0], sigmas, torch.zeros)  # which asks for no noise
        assert made[i].numpy() == pytest.approx((run * of.scale[i] + of.mean[i]).numpy(), abs=1e-3)


def test_a_model_does_not_depend_on_others_in_its_stack() -> None:
    both, alone = (Stack(keys, 2, network=NETWORK) for keys in (KEYS, KEYS[1:]))
    data = pool(1.0)
    both.train(data, KEYS, SPEC)
    alone.train(Pool(data.points[1:], data.real, data.share[1:]), KEYS[1:], SPEC)
    assert both.sample(9, KEYS, 5)[1].numpy() == pytest.approx(alone.sample(9, KEYS[1:], 5)[0].numpy(), abs=1e-4)


@pytest.mark.parametrize(("lam", "share"), [(0.0, 1.0), (0.25, 0.8), (1.0, 0.5), (math.inf, 0.0)])
def test_real_samples_are_drawn_by_their_share(lam: float, share: float) -> None:
    data = pool(lam)
    picked = stacked_diffusion._Draws(5, data, float(data.share[0]), 256).block()[0]
    tolerance = 4 * math.sqrt(share * (1 - share) / picked.size)
    assert (picked < data.real).mean() == pytest.approx(share, abs=tolerance)
    assert picked.min() >= 0 and picked.max() < data.points.shape[1]
    weights = data.weights()[0]
    assert float(weights.sum()) == pytest.approx(1) and float(weights[: data.real].sum()) == pytest.approx(share)


def test_coupling_is_the_best_assignment() -> None:
    """Five points: against all 120 orders."""
    source = seeds.generator(seeds.key("test coupling"))
    x, noise = (torch.from_numpy(source.standard_normal((2, 5, 2), dtype=np.float32)) for _ in range(2))
    found = stacked_diffusion.coupled(x, noise)
    for i in range(2):
        costs = [float((x[i] - noise[i][list(order)]).square().sum()) for order in itertools.permutations(range(5))]
        assert float((x[i] - found[i]).square().sum()) == pytest.approx(min(costs), rel=1e-5)
        assert sorted(found[i].tolist()) == sorted(noise[i].tolist())


def test_measures_of_a_shape() -> None:
    eight = shapes.shape("eight_gaussians", 0.1)
    assert len(eight.points) == 8 and eight.due.sum() == pytest.approx(1)
    x = np.repeat(eight.points[:6], 100, axis=0)[None]  # two modes are not there
    each, near = shapes.shares(eight, np.concatenate([x, x + 5], axis=0))
    assert (each[0] > 0).sum() == 6 and near[0] == 1 and near[1] < 0.2
    real, held_out = shapes.data("eight_gaussians", 0.1, 1000, 1)
    share = shapes.shares(eight, real[None])[1][0]
    assert share == pytest.approx(1 - math.exp(-4.5), abs=4 * math.sqrt(0.011 / 1000))  # Rayleigh: within 3 sd
    moved = held_out + np.array([0.3, 0.0], dtype=np.float32)
    # a shift by v: squared distance |v|² cos² on a direction, half of it over all directions
    assert shapes.sliced(moved[None], held_out[None])[0] == pytest.approx(0.3 / math.sqrt(2), rel=1e-3)
    assert shapes.exact_distance(moved[None], held_out[None])[0] == pytest.approx(0.3, abs=1e-3)
    line = np.stack([real[:400, 0], np.zeros(400)], axis=1), np.stack([held_out[:400, 0], np.zeros(400)], axis=1)
    squared = np.square(np.sort(line[0][:, 0]) - np.sort(line[1][:, 0])).mean()
    assert shapes.exact_distance(line[0][None], line[1][None])[0] == pytest.approx(math.sqrt(squared), rel=1e-5)
    assert wasserstein_distance(line[0][:, 0], line[1][:, 0]) <= math.sqrt(squared) + 1e-9


@pytest.mark.parametrize("name", ["two_moons", "rings", "swiss_roll"])
def test_continuous_shapes_are_cut_into_pieces_that_the_data_fill(name: str) -> None:
    of = shapes.shape(name, 0.1)
    real, _ = shapes.data(name, 0.1, 2000, 1)
    each, near = shapes.shares(of, real[None])
    assert near[0] > 0.98 and np.abs(each[0] / of.due - 1).max() < 0.5


@pytest.mark.parametrize("lam", [0.5, math.inf])
def test_lost_modes_round_by_round_are_those_of_each_round(lam: float) -> None:
    shares = np.full(4, 0.25)
    lost = theory.lost_modes_path(shares, 10, 6, lam=lam, least=0.1)
    for t, found in enumerate(lost, start=1):
        assert found.value == pytest.approx(theory.expected_lost_modes(shares, 10, t, lam=lam, least=0.1).value)
    assert lost[-1].value > lost[0].value


class Stop(Exception):
    """Where a run is cut off."""


def test_points_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    from upturn.observer import Observer

    class Until(Observer):
        def end(self, *args: object) -> None:
            raise Stop

    few = {
        "lam": [0.5, math.inf], "n": 100, "rounds": 2, "seeds": 2, "steps": 20, "width": 16, "batch": 64,
        "start": "warm",
    }
    whole = lab(tmp_path / "whole", "points", **few)
    for _ in range(2):  # stopped after each of the first two chunks
        with pytest.raises(Stop):
            experiment_runner.conduct("points", few, tmp_path / "cut", Until(), workers=1)
    again = lab(tmp_path / "cut", "points", **few)
    assert again["checks"] == whole["checks"]
    table = [(tmp_path / part / "table.parquet").read_bytes() for part in ("whole", "cut")]
    assert table[0] == table[1]
    assert (tmp_path / "cut" / "clouds.parquet").is_file()
    lost = path(again, "modes lost", lam="inf")
    assert set(lost) == {0, 1, 2} and lost[2]["theory"] is not None


@pytest.mark.long
def test_a_formulation_learns_eight_gaussians(tmp_path: Path) -> None:
    """Width 64, 300 steps, one retraining: most samples lie on the data, and all modes are there."""
    found = lab(tmp_path, "points", lam=[0.5], n=1000, rounds=1, seeds=2, steps=300, batch=128)
    assert path(found, "samples off the data")[1]["simulation"] < 0.25
    assert path(found, "modes lost, all seeds together")[1]["simulation"] == 0
