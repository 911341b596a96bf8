"""Tests of the optimizer with 8-bit moments: memory, trajectory, and resumption to equal bytes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from helpers.line_model import Line, examples
from upturn.adapters.full import Full
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.objectives.likelihood import Likelihood
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.optimizer import build_optimizer, tensors
from upturn.training.setup import TrainingSetup

pytestmark = pytest.mark.slow

library = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: wherever it is, diffusers imports it at every start, for many seconds",
)
SPEC = Training(steps=9, batch_size=16, learning_rate=1e-2, weight_decay=0.01, optimizer="adamw_8bit", save_every=4)


class Wide(Line):
    """With a matrix that is large enough for 8 bits (4,096 weights)."""

    def __init__(self) -> None:
        super().__init__(noisy=False)
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(3, 128), torch.nn.Linear(128, 128), torch.nn.Linear(128, 1))


def trained(spec: Training, progress: Path | None = None, stop: int = 0) -> tuple[Wide, torch.Tensor]:
    model, batch = Wide(), examples()

    def on_step(step: int, total: int, loss: float) -> None:
        if step == stop:
            raise InterruptedError

    plan = TrainingSetup(
        spec=spec, objective=Likelihood(), adapter=Full(), feed=FixedFeed(batch, 16, 7), key=7, where="test",
        progress=progress, on_step=on_step,
    )
    trainer.train(model, plan)
    return model, torch.cat([p.detach().reshape(-1) for p in model.module.parameters()])


def moments(name: str) -> int:
    """Bytes of the two moments of the large matrix after a step."""
    parameter = torch.nn.Parameter(torch.randn(128, 128))
    made = build_optimizer(SPEC.model_copy(update={"optimizer": name}), [parameter])
    parameter.square().sum().backward()
    made.step()
    return sum(v.numel() * v.element_size() for v in tensors(made, [parameter]).values())


@library
def test_its_state_takes_about_a_quarter_and_its_trajectory_is_adamws() -> None:
    assert moments("adamw_8bit") < 0.35 * moments("adamw")  # with two tables of 256 levels for 16,384 weights
    start = torch.cat([p.detach().reshape(-1) for p in Wide().module.parameters()])
    whole = trained(SPEC.model_copy(update={"optimizer": "adamw"}))[1]
    small = trained(SPEC)[1]
    assert float((whole - start).norm()) > 0.1
    assert float((small - whole).norm()) < 0.1 * float((whole - start).norm())


@library
def test_stopped_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = trained(SPEC)[1]
    with pytest.raises(InterruptedError):
        trained(SPEC, tmp_path, stop=6)
    assert torch.equal(trained(SPEC, tmp_path)[1], whole)


def test_without_the_library_it_is_refused_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match=r"needs bitsandbytes.*upturn\[eight-bit\]"):
        trained(SPEC)
