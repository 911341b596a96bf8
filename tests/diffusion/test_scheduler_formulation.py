"""Tests of the formulation read from a scheduler's configuration against the scheduler's own values."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from upturn import seeds
from upturn.diffusion.denoiser import spread
from upturn.diffusion.formulations.shifted_flow import ShiftedFlow
from upturn.diffusion.formulations.velocity import Velocity
from upturn.diffusion.scheduled import check, formulation
from upturn.errors import UserError

pytestmark = pytest.mark.slow

BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
SCHEDULES = [("linear", {}), ("scaled_linear", BETAS), ("squaredcos_cap_v2", {})]


def of(scheduler, **more):
    settings = {"tokens": 16, "time": "logit_normal", "last": "table", **more}
    return formulation({**scheduler.config, "_class_name": type(scheduler).__name__}, "here", **settings)


def drawn(n=200):
    x0, noise = (seeds.table_normal(key, 0, n, (4, 2, 2)) for key in (1, 2))
    return x0, noise, torch.arange(n) * 5


@pytest.mark.parametrize(("schedule", "betas"), SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_network_inputs_and_targets(schedule, betas, prediction):
    """c_in x is the scheduler's noisy sample; D of the exact target is x0; the weight makes plain squared error."""
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, prediction_type=prediction, **betas)
    form = of(scheduler)
    x0, noise, k = drawn()
    sigma = torch.from_numpy(form.table)[k].float()
    x, c = x0 + spread(sigma, x0) * noise, form.coefficients(sigma)
    noisy = scheduler.add_noise(x0, noise, k)
    torch.testing.assert_close(spread(c.into, x) * x, noisy, rtol=2e-4, atol=2e-4)
    assert (c.noise - k).abs().max() < 0.01
    target = noise if prediction == "epsilon" else scheduler.get_velocity(x0, noise, k)
    wrong = target + 0.1
    error = spread(c.skip, x) * x + spread(c.out, x) * wrong - x0
    near = sigma < 100  # beyond, the rounding of float32 hides the data in the noise
    mine = (form.weight(sigma) * error.square().flatten(1).sum(1))[near]
    torch.testing.assert_close(mine, (wrong - target).square().flatten(1).sum(1)[near], rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 4, 20, 30])
def test_noise_levels_of_a_sampler_are_those_of_the_scheduler(spacing, steps):
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_schedule="scaled_linear", timestep_spacing=spacing, steps_offset=1, **BETAS
    )
    scheduler.set_timesteps(steps)
    form = of(scheduler)
    torch.testing.assert_close(form.sigmas(steps), scheduler.sigmas, rtol=1e-4, atol=0)
    torch.testing.assert_close(form.time(form.sigmas(steps)[:-1]), scheduler.timesteps.float(), rtol=0, atol=0.01)


def test_linspace_visits_the_whole_times_of_ddim():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(13)
    form = of(scheduler)
    assert (form.time(form.sigmas(13)[:-1]).round() == scheduler.timesteps).all()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 5, 28])
def test_a_flow_samples_at_the_times_of_the_scheduler(shift, steps):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    sigma = of(scheduler).sigmas(steps)
    torch.testing.assert_close(sigma / (1 + sigma), scheduler.sigmas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_flow_that_shifts_by_resolution(kind):
    """As the Flux pipeline does: mu by the number of tokens, times from 1 to 1/steps."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 7, 7), mu=calculate_shift(1024))
    form = of(scheduler, tokens=1024, last="even")
    sigma = form.sigmas(7)
    torch.testing.assert_close(sigma / (1 + sigma), scheduler.sigmas, rtol=1e-5, atol=1e-6)
    assert form.training_shift == 1.0


def test_a_flow_trains_at_the_times_of_the_scheduler():
    """diffusers' examples: index = floor(1000 u) into the scheduler's falling times, u logit-normal or uniform."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    u = seeds.table_uniform(3, 0, 4000)
    sigma = of(scheduler, time="uniform").training_sigma(u)
    torch.testing.assert_close(sigma / (1 + sigma), scheduler.sigmas[(u.double() * 1000).long()], rtol=1e-5, atol=1e-6)
    sigma = of(scheduler).training_sigma(u)
    normal = torch.distributions.Normal(0.0, 1.0).icdf(u.clamp(1e-7, 1 - 1e-7)).sigmoid()
    expected = scheduler.sigmas[(normal * 1000).long()]
    assert ((sigma / (1 + sigma) - expected).abs() < 3.1e-3).all()  # a time of the table, or its neighbour by rounding


def test_the_velocity_of_a_flow_is_what_the_weight_measures():
    form = ShiftedFlow()
    x0, noise, _ = drawn()
    sigma = form.training_sigma(seeds.table_uniform(3, 0, 200))
    sigma[0] = form.sigmas(1)[0]  # t = 1
    x, c = x0 + spread(sigma, x0) * noise, form.coefficients(sigma)
    assert float(c.noise[0]) == 1000.0
    wrong = noise - x0 + 0.1
    error = spread(c.skip, x) * x + spread(c.out, x) * wrong - x0
    mine = form.weight(sigma) * error.square().flatten(1).sum(1)
    torch.testing.assert_close(mine, torch.full_like(mine, 0.01 * 16), rtol=1e-2, atol=1e-4)


def test_a_scheduler_without_a_formulation_is_named():
    for config, says in (
        ({"_class_name": "LCMScheduler"}, "scheduler LCMScheduler is not supported"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1}, "shift_terminal"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
    ):
        with pytest.raises(UserError, match=says):
            check(config, "here")
    with pytest.raises(ValueError, match="steps must be between 1 and 999"):
        Velocity(spacing="leading", offset=1).sigmas(1000)
