"""Tests that the forward passes of a plan equal those of the run, and of data loaded during imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.plan_recipes import ONLINE, SAMPLED, TEXT
from helpers.small_recipes import small
from upturn import plan
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm
from upturn.plan import forward_passes, planner, timing
from upturn.plan.forward_passes import Passes
from upturn.training import trainer

pytestmark = pytest.mark.slow

# 20 pairs in batches of 5: no batch is smaller than the others, whichever come first
FIXED = TEXT + SAMPLED.replace("    - {epochs: 2, batch_size: 16}\n", "").replace("batch_size: 8", "batch_size: 5")
DPO = "rounds.train.0"


@contextmanager
def predicted(found: list[Passes]) -> Iterator[None]:
    """What the plan works out for each training, in the order of the run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("of_a_fixed_set", "of_draws"):
            own = getattr(forward_passes, name)

            def noted(*args: Any, own: Any = own) -> Passes:
                made: Passes = own(*args)
                found.append(made)
                return made

            patch.setattr(planner.passes, name, noted)
        yield


@contextmanager
def counted(found: list[list[int]]) -> Iterator[None]:
    """Examples that go through the model in each training: with gradient, and without. Held-out losses apart."""
    on = [False]

    def spied(own: Any) -> Any:
        def call(self: CausalLm, batch: Any, *rest: Any) -> Any:
            before, on[0] = on[0], False  # one may call the other
            if before:
                found[-1][0 if torch.is_grad_enabled() else 1] += len(batch)
            try:
                return own(self, batch, *rest)
            finally:
                on[0] = before
        return call

    def switched(own: Any, to: bool) -> Any:
        def call(*args: Any) -> Any:
            before, on[0] = on[0], to
            if to:
                found.append([0, 0])
            try:
                return own(*args)
            finally:
                on[0] = before
        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLm, "forward", spied(CausalLm.forward))
        patch.setattr(CausalLm, "act", spied(CausalLm.act))
        patch.setattr(trainer, "train", switched(trainer.train, True))
        patch.setattr(trainer, "held_out_loss", switched(trainer.held_out_loss, False))
        yield


@pytest.mark.parametrize(("text", "settings", "quiet"), [
    (FIXED, [f"{DPO}.steps=5"], 20),  # 25 examples are requested, there are 20: the reference once
    (FIXED, [f"{DPO}.steps=2"], 10),  # 10 are requested: not all of the set, and the reference in each step
    (FIXED, [f"{DPO}.steps=null", f"{DPO}.epochs=2", f"{DPO}.objective=kto"], None),
    (ONLINE, ["rounds.train.online.passes=2"], 2 * 12 * 2),  # two draws, of the policy and the reference
    (ONLINE, ["rounds.train.batch_size=12"], 2 * 12),  # the policy's is the one that is trained
    (ONLINE, ["rounds.train.objective=dpo"], 2 * 12),  # in the steps
], ids=["once", "too short", "kto", "draws", "in one", "online dpo"])
def test_passes_are_those_of_the_run(
    text: str, settings: list[str], quiet: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "step_seconds", lambda *given: 0.0)
    settings = [*settings, "evaluate.prompts=4", "grid.prompts=1", "stages.0.epochs=1"]
    recipe = small(text if text is FIXED else TEXT + text, *settings)
    planned: list[Passes] = []
    with predicted(planned):
        plan.plan(recipe)
    made: list[list[int]] = []
    with counted(made):
        loop.run(recipe, tmp_path)
    assert [[p.trained, p.quiet] for p in planned] == made
    if quiet is not None:
        assert made[-1][1] == quiet


def test_forward_passes_outside_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second an example, and steps for nothing: the plan's seconds are the passes that no step is timed with."""
    monkeypatch.setattr(timing, "step_seconds", lambda *given: 0.0)
    monkeypatch.setattr(timing, "quiet_seconds", lambda *given: 1.0)
    rows = plan.plan(small(FIXED, f"{DPO}.steps=5")).rows
    assert {row.unit: round(row.seconds) for row in rows if row.step == "train"}["rounds/001"] == 20
    likelihood = plan.plan(small(FIXED, f"{DPO}.objective=likelihood")).rows
    assert {row.unit: round(row.seconds) for row in likelihood if row.step == "train"}["rounds/001"] == 0


LATE = """
import sys
from pathlib import Path
from upturn import plan
from upturn.config import recipe
from upturn.errors import UserError
assert "torch" not in sys.modules
try:
    found = plan.plan(recipe.load(Path(sys.argv[1]), sys.argv[2:]))
    print(found.rows[0].samples, found.rows[0].seconds > 0, *found.notes)
except UserError as error:
    print("refused", error)
"""


def _alone(tmp_path: Path, *settings: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    asked = [sys.executable, "-c", LATE, str(path), *settings]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.long
def test_data_that_another_process_loads_are_the_same(tmp_path: Path) -> None:
    here = plan.plan(small(TEXT))
    assert _alone(tmp_path) == " ".join([str(here.rows[0].samples), "True", *here.notes])


@pytest.mark.long
def test_a_refusal_of_the_child_process_is_raised_here(tmp_path: Path) -> None:
    said = _alone(tmp_path, "data={name: jsonl, path: nowhere.jsonl}")
    assert said.startswith("refused") and "nowhere.jsonl" in said
