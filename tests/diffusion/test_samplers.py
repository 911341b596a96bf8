"""Tests of samplers as components: declarations match behaviour, and a user's class works in a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.small_recipes import POINTS, small
from upturn.config import components
from upturn.diffusion.base_sampler import BaseSampler, Noise
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.models._diffusion.sampling import DiffusionSampling
from upturn.types import Prompt

OWN = f"{__name__}:OneJump"


@dataclass(frozen=True)
class OneJump(BaseSampler):
    """The first estimate of x0, moved by ``shift``."""

    shift: float = 0.0

    needs_finite_start: ClassVar[bool] = True

    def __call__(self, denoise: Any, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        return denoise(x, sigmas[0]) + self.shift

    def evaluations(self, steps: int) -> int:
        return 1


@pytest.mark.parametrize("name", [*components.names("sampler"), OWN])
def test_only_stochastic_samplers_draw_noise(name: str) -> None:
    drawn: list[int] = []

    def noise(step: int) -> Tensor:
        drawn.append(step)
        return torch.ones(5, 2)

    found = components.make("sampler", name)
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0])
    found(lambda x, sigma: x / (1 + sigma**2), torch.ones(5, 2), sigmas, noise)
    assert bool(drawn) == found.stochastic
    assert found.stochastic or not found.replayable


def test_fields_of_a_sampler_are_those_of_the_settings_unless_given_with_its_name() -> None:
    settings = DiffusionSampling(sampler="churn", s_churn=7.0)
    assert settings.build_sampler() == components.make("sampler", {"name": "churn", "s_churn": 7.0})
    settings = DiffusionSampling(sampler={"name": "churn", "s_churn": 3.0})
    assert settings.build_sampler() == components.make("sampler", {"name": "churn", "s_churn": 3.0})


def test_a_user_defined_sampler_works_in_a_recipe() -> None:
    at = "rounds.sample.settings.sampler"
    parts = assemble(small(POINTS, f"{at}={{name: '{OWN}', shift: 2.0}}"))
    assert parts.sampling.passes == 1
    other = assemble(small(POINTS, f"{at}='{OWN}'"))
    model: Any = parts.model("policy")
    model.build(parts.source.load().train, 0)
    prompts, keys = [Prompt()] * 3, np.arange(3)[:, None]
    moved, still = (model.sample(prompts, keys, part.sampling).content for part in (parts, other))
    frame = model.frame.back(torch.full((1, 2), 2.0)) - model.frame.back(torch.zeros(1, 2))
    np.testing.assert_allclose(moved - still, np.broadcast_to(frame.numpy(), (3, 2)), rtol=1e-4)


def test_an_unknown_sampler_is_refused_with_the_near_name_and_all_that_are_known() -> None:
    with pytest.raises(UserError) as caught:
        assemble(small(POINTS, "rounds.sample.settings.sampler=eular"))
    message = str(caught.value)
    assert "rounds.sample.settings" in message and "Did you mean 'euler'" in message
    assert all(name in message for name in components.names("sampler"))


def test_a_rollout_names_the_samplers_that_can_be_replayed() -> None:
    parts = assemble(small(POINTS))
    model: Any = parts.model("policy")
    model.build(parts.source.load().train, 0)
    with pytest.raises(UserError, match=r"Gaussian transitions \(ancestral\)"):
        model.rollout([Prompt()], np.zeros((1, 1), np.int64), DiffusionSampling(sampler="euler", steps=3))
