"""Tests of the diffusion package against closed forms and the schedulers of diffusers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from upturn import seeds
from upturn.config import components
from upturn.diffusion.denoiser import denoised, spread
from upturn.diffusion.formulations.edm import Edm
from upturn.diffusion.formulations.epsilon import Epsilon
from upturn.diffusion.formulations.flow import Flow
from upturn.diffusion.guidance import guided
from upturn.diffusion.samplers.churn import Churn
from upturn.diffusion.samplers.euler import Euler
from upturn.diffusion.samplers.heun import Heun
from upturn.diffusion.transitions import posterior

FORMULATIONS = [Edm(sigma_data=0.6), Epsilon(), Epsilon(schedule="cosine"), Flow(), Flow(time="uniform")]


class Linear:
    """A network that is any fixed function of all its inputs; the module is not looked at."""

    def call(self, module, x, noise, condition):
        label = condition["label"]
        return torch.tanh(0.7 * x + 0.1 * spread(noise, x) + 0.05 * spread(label, x).to(x.dtype))


NETWORK = Linear()


def drawn(n=500, dims=3):
    x0 = seeds.table_normal(1, 0, n, (dims,)).double()
    noise = seeds.table_normal(2, 0, n, (dims,)).double()
    u = seeds.table_uniform(3, 0, n).double()
    label = torch.arange(n) % 4
    return x0, noise, u, label


def surrogate(formulation, x0, noise, sigma, label):
    """(N,) the weighted squared error that the models train on."""
    d = denoised(NETWORK, torch.nn.Identity(), formulation, x0 + spread(sigma, x0) * noise, sigma, {"label": label})
    return formulation.weight(sigma) * (d - x0).square().sum(1)


# Each weight is its textbook's loss.


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_epsilon_loss_is_the_plain_squared_error_of_the_noise(schedule):
    x0, noise, _, label = drawn()
    form = Epsilon(schedule=schedule)
    k = torch.arange(len(x0)) * 2 % 1000  # the textbook: x_k = sqrt(abar) x0 + sqrt(1 - abar) noise
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    else:
        f = torch.cos((torch.arange(1001).double() / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    bar = torch.cumprod(1 - betas, 0)[k][:, None]
    predicted = NETWORK.call(None, bar.sqrt() * x0 + (1 - bar).sqrt() * noise, k.double(), {"label": label})
    textbook = (predicted - noise).square().sum(1)
    sigma = ((1 - bar) / bar).sqrt()[:, 0]
    torch.testing.assert_close(surrogate(form, x0, noise, sigma, label), textbook, rtol=1e-6, atol=1e-8)


def test_flow_loss_is_the_plain_squared_error_of_the_velocity():
    x0, noise, u, label = drawn()
    t = 0.01 + 0.98 * u
    predicted = NETWORK.call(None, (1 - t[:, None]) * x0 + t[:, None] * noise, 1000 * t, {"label": label})
    textbook = (predicted - (noise - x0)).square().sum(1)
    torch.testing.assert_close(surrogate(Flow(), x0, noise, t / (1 - t), label), textbook, rtol=1e-6, atol=1e-8)


def test_edm_loss_is_the_squared_error_of_a_target_of_unit_variance():
    x0, noise, u, label = drawn(20_000)
    form, sigma_data = Edm(sigma_data=0.6), 0.6
    x0 = x0 * sigma_data
    sigma = form.training_sigma(u)
    x = x0 + sigma[:, None] * noise
    root = (sigma**2 + sigma_data**2).sqrt()[:, None]
    # Karras et al. 2022, equation 8, with their table 1 written out
    target = (x0 - sigma_data**2 / root**2 * x) / (sigma[:, None] * sigma_data / root)
    raw = NETWORK.call(None, x / root, sigma.log() / 4, {"label": label})
    textbook = (raw - target).square().sum(1)
    torch.testing.assert_close(surrogate(form, x0, noise, sigma, label), textbook, rtol=1e-6, atol=1e-8)
    # 60,000 targets of variance 1, in 5 bands of noise: 12,000 each, standard error of a variance 0.013
    for band in target[sigma.argsort()].chunk(5):
        assert abs(float(band.var()) - 1) < 0.06 and abs(float((x / root).var()) - 1) < 0.04


# Coefficients, noise levels, schedules.


@pytest.mark.parametrize("form", FORMULATIONS, ids=str)
def test_an_exact_network_reconstructs_the_data(form):
    """c_skip x + c_out F = x0 for the F that each formulation calls right: the coefficients are inverse pairs."""
    x0, noise, u, _ = drawn()
    sigma = form.training_sigma(u)[:, None]
    c = form.coefficients(sigma[:, 0])
    x = x0 + sigma * noise
    if isinstance(form, Epsilon):
        right = noise
    elif isinstance(form, Flow):
        right = noise - x0
    else:
        right = (x0 - 0.36 / (0.36 + sigma**2) * x) / (sigma * 0.6 / (0.36 + sigma**2).sqrt())
    torch.testing.assert_close(c.skip[:, None] * x + c.out[:, None] * right, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMULATIONS, ids=str)
def test_schedules_fall_to_zero_and_stay_where_the_network_was_trained(form):
    for steps in (1, 2, 20):
        sigmas = form.sigmas(steps)
        assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    low, high = form.noise_range()
    told = form.coefficients(form.sigmas(50)[:-1]).noise
    slack = 1e-4 * (high - low)
    assert told.min() >= low - slack and told.max() <= high + slack and (told.diff() <= 0).all()


def test_epsilon_passes_the_exact_time_of_each_level_and_interpolates_between():
    form = Epsilon()
    levels = torch.from_numpy(form.table).float()
    torch.testing.assert_close(form.coefficients(levels).noise, torch.arange(1000.0), atol=2e-3, rtol=0)
    between = (levels[10] * levels[11]).sqrt()
    assert float(form.coefficients(between).noise) == pytest.approx(10.5, abs=1e-3)
    u = (torch.arange(1000) + 0.5) / 1000
    assert torch.equal(form.training_sigma(u), levels)
    assert torch.equal(form.training_sigma(torch.tensor([0.0, 1 - 2**-24])), levels[[0, -1]])


def test_epsilon_samples_from_the_configured_greatest_level():
    for schedule in ("linear", "cosine"):
        form = Epsilon(schedule=schedule)
        top = form.sigmas(10)[0]
        assert top <= 80 < form.table[int(form.time(top).round()) + 1]
    assert float(Epsilon(sigma_max=1e9).sigmas(10)[0]) == pytest.approx(157.4, abs=0.1)


def test_training_levels_have_the_stated_distribution_and_are_finite_at_the_ends():
    u = seeds.table_uniform(5, 0, 40_000)
    logs = Edm(sigma_data=1, p_mean=-0.7, p_std=0.9).training_sigma(u).log()
    assert abs(float(logs.mean()) + 0.7) < 4 * 0.9 / 200 and abs(float(logs.std()) - 0.9) < 4 * 0.9 / 283
    sigma = Flow(mean=0.3, std=0.8).training_sigma(u)
    logit = sigma.log()  # logit of t = sigma / (1 + sigma) is log sigma
    assert abs(float(logit.mean()) - 0.3) < 4 * 0.8 / 200
    uniform = Flow(time="uniform").training_sigma(u)
    assert abs(float((uniform / (1 + uniform)).mean()) - 0.5) < 4 * 0.289 / 200
    ends = torch.tensor([0.0, 1 - 2**-24])
    for form in FORMULATIONS:
        sigma = form.training_sigma(ends)
        assert torch.isfinite(sigma).all() and (sigma > 0).all() and torch.isfinite(form.weight(sigma)).all()


def test_edm_schedule_is_equation_5():
    form = Edm(sigma_data=0.5)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(form.sigmas(18)[:-1].numpy(), expected, rtol=1e-5)


def test_edm_measures_what_is_not_given():
    assert Edm().fitted(0.83).sigma_data == 0.83 and Edm(sigma_data=0.5).fitted(0.83).sigma_data == 0.5
    with pytest.raises(ValueError, match="not measured"):
        Edm().weight(torch.ones(1))


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("edm", {"sigma_min": 90.0}, "sigma_min < sigma_max"), ("edm", {"rho": 0.0}, "above 0"),
        ("epsilon", {"beta_start": 0.5}, "beta_start < beta_end"),
        ("flow", {"sigma_max": 0.0}, "sigma_min < sigma_max"),
        ("epsilon", {"schedule": "quadratic"}, "linear"), ("flow", {"steps": 3}, "no field"),
    ],
)
def test_bad_fields_are_named(name, fields, says):
    from upturn.errors import UserError

    with pytest.raises(UserError, match=says):
        components.make("formulation", {"name": name, **fields}, "model.formulation")


# Samplers, with denoisers known in closed form.

MEAN, STD = 1.5, 0.7
CENTRES, SHARES, WIDTH = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([0.2, 0.5, 0.3]), 0.25


def gaussian(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, STD^2)."""
    return (STD**2 * x + spread(sigma, x) ** 2 * MEAN) / (STD**2 + spread(sigma, x) ** 2)


def mixture(x, sigma):
    """E[x0 | x] for three Gaussians on the line; x (N, 1)."""
    total = WIDTH**2 + spread(sigma, x) ** 2
    share = (SHARES.log() - (x - CENTRES) ** 2 / (2 * total)).softmax(dim=1)
    each = (WIDTH**2 * x + spread(sigma, x) ** 2 * CENTRES) / total
    return (share * each).sum(dim=1, keepdim=True)


def start(sigmas, n=20_000):
    width = 100  # a table's row of 100 numbers is cheaper than 100 rows of one

    def normal(stream):
        return seeds.table_normal(3, 0, -(-n // width), (width,), stream=stream).reshape(-1, 1)[:n]

    return normal(0) * sigmas[0], lambda i: normal(i + 1)


def run(sampler, denoise, steps=40, form=None, n=20_000):
    sigmas = (form or Edm(sigma_data=1.0)).sigmas(steps)
    x, noise = start(sigmas, n)
    return components.make("sampler", sampler)(denoise, x, sigmas, noise)


SAMPLERS = components.names("sampler")


def second_order_steps(sampler):
    found = components.find("sampler", sampler)
    return found.order == 2 or found.needs_finite_start  # churn: Heun steps, whose noise makes it of first order


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reproduce_a_gaussian(sampler):
    """20,000 samples: standard errors 0.005 of the mean, 0.0035 of the deviation; first order leaves a bias."""
    made = run(sampler, gaussian, steps=40 if second_order_steps(sampler) else 200)
    biased = 0.0 if components.find("sampler", sampler).order == 2 else 0.02
    assert abs(float(made.mean()) - MEAN) < 4 * 0.005 + 0.001
    assert abs(float(made.std()) - STD) < 4 * 0.0035 + biased


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_reproduce_a_mixture(sampler):
    made = run(sampler, mixture, steps=60 if second_order_steps(sampler) else 200)
    nearest = (made - CENTRES).abs().argmin(dim=1)
    for mode, share in enumerate(SHARES.tolist()):
        rows = made[nearest == mode, 0]
        error = math.sqrt(share * (1 - share) / len(made))
        assert abs(len(rows) / len(made) - share) < 4 * error + 0.005
        assert abs(float(rows.mean() - CENTRES[mode])) < 4 * WIDTH / math.sqrt(len(rows)) + 0.005
        assert abs(float(rows.std()) - WIDTH) < 0.02


@pytest.mark.parametrize("form", FORMULATIONS, ids=str)
def test_every_formulation_s_levels_lead_to_the_same_distribution(form):
    made = run("ancestral", gaussian, steps=250, form=form, n=10_000)
    assert abs(float(made.mean()) - MEAN) < 4 * 0.007 + 0.01 and abs(float(made.std()) - STD) < 4 * 0.005 + 0.02


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not components.find("sampler", name).stochastic])
def test_ode_samplers_converge_at_their_order(sampler):
    """For a Gaussian the ODE keeps (x - MEAN) / sqrt(STD^2 + sigma^2): errors against that fall as steps^-order.

    Between sigma 20 and 0.05, in float64, without the last step to 0 (it is of first order in all of them).
    """
    high, low = 20.0, 0.05

    def error(steps):
        ramp = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        sigmas = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
        x = torch.linspace(-40, 40, 9, dtype=torch.float64)[:, None]
        got = components.make("sampler", sampler)(gaussian, x, sigmas, None)
        exact = MEAN + (x - MEAN) * math.sqrt((STD**2 + low**2) / (STD**2 + high**2))
        return float((got - exact).abs().max())

    errors = [error(steps) for steps in (64, 128, 256)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(components.find("sampler", sampler).order, abs=0.2)


def test_churn_without_churn_is_heun():
    sigmas = Edm(sigma_data=1.0).sigmas(12)
    x, noise = start(sigmas, 50)
    without = Churn(s_churn=0.0)(mixture, x, sigmas, noise)
    assert torch.equal(without, Heun()(mixture, x, sigmas, noise))
    assert not torch.allclose(Churn()(mixture, x, sigmas, noise), without, atol=0.01)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_counted_right(sampler):
    calls = []

    def counted(x, sigma):
        calls.append(float(sigma))
        return gaussian(x, sigma)

    run(sampler, counted, steps=7, n=4)
    assert len(calls) == components.make("sampler", sampler).evaluations(7)


# The schedulers of diffusers, as an independent implementation.


def scheduler(name, **config):
    import diffusers

    made = getattr(diffusers, name)(**config)
    made.set_timesteps(20)
    return made


@pytest.mark.slow
def test_euler_is_ddim():
    """Steps of DDIMScheduler in the variance-preserving coordinates are Euler steps in ours, down to sigma = 0."""
    ddim = scheduler("DDIMScheduler", clip_sample=False, set_alpha_to_one=True, beta_schedule="linear",
                     beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing")
    form, label = Epsilon(), torch.arange(6) % 4
    times = ddim.timesteps.tolist()
    sigmas = torch.cat([torch.from_numpy(form.table)[times], torch.zeros(1, dtype=torch.float64)])
    sample = seeds.table_normal(2, 0, 6, (3,)).double()
    x = sample * (1 + sigmas[0] ** 2).sqrt()
    for time, now, later in zip(times, sigmas[:-1], sigmas[1:], strict=True):
        said = NETWORK.call(None, sample, torch.tensor(float(time)), {"label": label})
        sample = ddim.step(said, time, sample).prev_sample
        x = Euler()(
            lambda v, s: denoised(NETWORK, torch.nn.Identity(), form, v, s, {"label": label}), x,
            torch.stack([now, later]), None,
        )
        torch.testing.assert_close(x / (1 + later**2).sqrt(), sample, rtol=1e-4, atol=1e-5)


def test_ancestral_transitions_are_those_of_ddpm_scheduler():
    """All 1,000 times, clipping off: the same mean, and the same standard deviation as its "fixed_small" variance."""
    ddpm = scheduler("DDPMScheduler", clip_sample=False, beta_schedule="linear", variance_type="fixed_small")
    ddpm.set_timesteps(1000)
    table = torch.from_numpy(Epsilon().table)
    sample, predicted = seeds.table_normal(7, 0, 1, (5,)), seeds.table_normal(8, 0, 1, (5,))
    for k in (999, 600, 50, 3, 1):
        now, later = table[k].float(), table[k - 1].float()
        zero = ddpm.step(predicted, k, sample, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(sample.shape, generator=torch.Generator().manual_seed(0))
        x = sample * (1 + now**2).sqrt()
        mean, std = posterior(x, x - now * predicted, now, later)
        ours = (mean + std * noise) / (1 + later**2).sqrt()
        torch.testing.assert_close(ours, zero.prev_sample, rtol=2e-3, atol=2e-3)
        variance = (ddpm._get_variance(k) * (1 + later**2)).sqrt()
        assert float(std) == pytest.approx(float(variance), rel=1e-3)


def test_edm_levels_and_coefficients_are_those_of_diffusers():
    form = Edm(sigma_data=0.6)
    config = dict(form.scheduler())
    other = scheduler(config.pop("_class_name"), **config)
    torch.testing.assert_close(form.sigmas(20), other.sigmas.cpu(), rtol=1e-4, atol=1e-6)
    sigma, x, raw = torch.tensor(1.7), torch.tensor([0.3, -2.0]), torch.tensor([0.9, 0.1])
    c = form.coefficients(sigma)
    torch.testing.assert_close(other.precondition_inputs(x, sigma), c.into * x)
    torch.testing.assert_close(other.precondition_outputs(x, raw, sigma), c.skip * x + c.out * raw)
    assert float(other.precondition_noise(sigma)) == pytest.approx(float(c.noise))


# Guidance.


def test_guidance_of_two_gaussians_is_the_gaussian_it_should_be():
    """For two of one width, guided scores are a score again: the mean is extrapolated, the width stays."""

    def around(mean):
        return lambda x, sigma: (STD**2 * x + spread(sigma, x) ** 2 * mean) / (STD**2 + spread(sigma, x) ** 2)

    made = run("heun", guided(around(1.0), around(0.0), 2.5), n=20_000)
    assert abs(float(made.mean()) - 2.5) < 4 * 0.005 + 0.002 and abs(float(made.std()) - STD) < 4 * 0.0035 + 0.002


def test_guidance_acts_inside_its_interval_row_by_row():
    strong, weak = (lambda x, s: x + 1), (lambda x, s: x)
    both = guided(strong, weak, 3.0, low=0.5, high=2.0)
    x, sigma = torch.zeros(4, 2), torch.tensor([0.1, 0.5, 2.0, 5.0])
    assert both(x, sigma)[:, 0].tolist() == [1, 3, 3, 1]
    assert [float(both(x, s)[0, 0]) for s in sigma] == [1, 3, 3, 1]
    never = guided(strong, lambda x, s: pytest.fail("not needed here"), 3.0, low=0.5, high=2.0)
    assert float(never(x, torch.tensor(7.0))[0, 0]) == 1
