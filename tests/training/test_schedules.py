"""Tests of schedules and optimizers as components: closed forms, line numbers in messages, user classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.small_recipes import POINTS, small
from upturn.config import components, recipe
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.loop.loop import run
from upturn.protocols import OptimizerFactory, Schedule
from upturn.training.schedule import learning_rate

OWN_OPTIMIZER, OWN_SCHEDULE = f"{__name__}:Momentum", f"{__name__}:Steps"


@dataclass(frozen=True)
class Momentum(OptimizerFactory):
    """Stochastic gradient descent with momentum."""

    momentum: float = 0.9

    def build(
        self, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=learning_rate, weight_decay=weight_decay, momentum=self.momentum)


@dataclass(frozen=True)
class Steps(Schedule):
    """Divides the rate by ``by`` at half of the steps."""

    by: float = 10.0

    def factor(self, done: float) -> float:
        return 1.0 if done < 0.5 else 1 / self.by


@pytest.mark.parametrize("name", components.names("schedule"))
def test_every_schedule_starts_at_the_rate_and_never_exceeds_it_or_falls_below_zero(name: str) -> None:
    spec = Training(steps=200, learning_rate=3e-3, schedule=name, warmup=0.1)
    rates = [learning_rate(spec, step, 200) for step in range(200)]
    assert rates[20] == 3e-3 and all(0 <= rate <= 3e-3 for rate in rates)
    assert (np.diff(rates[:20]) > 0).all() and (np.diff(rates[20:]) <= 0).all()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_are_those_of_torch(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = (
        torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=50) if name == "linear"
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    )
    spec = Training(steps=50, learning_rate=0.5, schedule=name, warmup=0.0)
    for step in range(50):
        assert learning_rate(spec, step, 50) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.slow
def test_a_user_defined_optimizer_and_schedule_work_in_a_recipe(tmp_path: Path) -> None:
    settings = [
        "rounds=null", "gate=null", f"stages.0.optimizer={{name: '{OWN_OPTIMIZER}', momentum: 0.5}}",
        f"stages.0.schedule={{name: '{OWN_SCHEDULE}', by: 4}}", "stages.0.warmup=0", "stages.0.checkpoint_epochs=[]",
    ]
    given = small(POINTS, *settings)
    assert recipe.parse(recipe.to_yaml(given), "again") == given
    spec = given.stages[0]
    assert [learning_rate(spec, step, 40) / spec.learning_rate for step in (19, 20)] == [1.0, 0.25]
    done = run(given, tmp_path / "own")
    history = json.loads((done.unit("rounds/000/pretrain") / "losses.json").read_text())
    assert history[-1]["learning_rate"] == pytest.approx(spec.learning_rate / 4)


@pytest.mark.parametrize(("key", "wrong", "near"), [("optimizer", "adamv", "adamw"), ("schedule", "cosin", "cosine")])
def test_an_unknown_name_is_refused_with_line_and_near_name(key: str, wrong: str, near: str) -> None:
    text = POINTS.replace("{name: finetune,", f"{{name: finetune, {key}: {wrong},")
    with pytest.raises(UserError, match=rf"small\.yaml:9: .*{key}: there is no {key} '{wrong}'.*Did you mean '{near}'"):
        small(text)


def test_a_field_that_it_does_not_have_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"stages\.pretrain\.optimizer\.beta: optimizer 'adamw' has no field 'beta'"):
        assemble(small(POINTS, "stages.0.optimizer={name: adamw, beta: 0.9}"))
