"""Rounds that have nothing to learn from are skipped with their reason; best_of_n keeps no wrong answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.equal_scorers import Equal
from upturn.config.recipe import parse
from upturn.curators.best_of_n import BestOfN
from upturn.errors import RunError
from upturn.loop import loop
from upturn.observer import Observer
from upturn.report import write
from upturn.runs import status
from upturn.store import parquet_tables
from upturn.store.retention import decision
from upturn.store.run import Run
from upturn.types import Prompt, synthetic_samples

pytestmark = pytest.mark.slow

POINTS = """
name: points
threads: 1
data: {name: points, shape: eight_gaussians, n: 400}
models: {policy: {name: points, network: {name: mlp, width: 16, depth: 1}}}
features: points
stages: [{name: pretrain, steps: 20, batch_size: 64}]
evaluate: {prompts: 40, metrics: [coverage], settings: {steps: 2}}
gate: {metric: coverage}
"""
SCORED = """
rounds:
  count: 2
  sample: {prompts: 12, candidates: 3, settings: {steps: 2}}
  score: "helpers.equal_scorers:Equal"
  train: {objective: dpo, steps: 2, batch_size: 8}
"""
ONLINE = """
rounds:
  count: 1
  score: "helpers.equal_scorers:Equal"
  train:
    objective: dpo
    online: {prompts: 8, candidates: 2, settings: {steps: 2}}
    steps: 3
    batch_size: 8
"""
VERIFIED = """
rounds:
  count: 1
  sample: {prompts: 40, candidates: 3, settings: {steps: 2}}
  score: {name: "helpers.equal_scorers:Beyond", at: AT}
  curate: {name: best_of_n}
  train: {steps: 2, batch_size: 8}
"""


class Notes(Observer):
    """Keeps the notes; from the sampling of round ``from_round`` on the rewards differ."""

    def __init__(self, from_round: int | None = None) -> None:
        self.noted: list[str] = []
        self.unit = None if from_round is None else f"rounds/{from_round:03d}"

    def note(self, text: str) -> None:
        self.noted.append(text)

    def begin(self, unit: str, step: str) -> None:
        if (unit, step) == (self.unit, "sample"):
            Equal.spread = True


@pytest.fixture(autouse=True)
def equal_again() -> Iterator[None]:
    yield
    Equal.spread = False


def _skipped(run: Run, number: int) -> str:
    """The reason, in all three places."""
    gate = json.loads((run.unit(f"rounds/{number:03d}") / "gate.json").read_text())
    assert gate["decision"] == "skipped" == status.read(run).rounds[number].gate["decision"]  # type: ignore[index]
    record = run.done(f"rounds/{number:03d}", "gate")
    assert record is not None and record.info["reason"] == gate["reason"]
    return str(gate["reason"])


def test_a_round_whose_rewards_are_all_equal_is_skipped_and_the_run_goes_on(tmp_path: Path) -> None:
    """Round 1 has one reward for all, round 2 has not: it starts from round 0 and is gated as ever."""
    notes = Notes(from_round=2)
    run = loop.run(parse(POINTS + SCORED, "recipe.yaml"), tmp_path, notes)
    assert run.state.state == "done"
    reason = _skipped(run, 1)
    assert "none of 12 prompts has candidates of different reward" in reason
    assert any("rounds/001 is skipped" in note for note in notes.noted)
    assert any("of 12 of 12 prompts have equal rewards" in note for note in notes.noted)
    assert run.done("rounds/001", "train") is None and not (run.unit("rounds/001") / "model").exists()
    second = json.loads((run.unit("rounds/002") / "gate.json").read_text())
    assert second["decision"] in ("promoted", "rejected") and second["incumbent"] == "rounds/000"
    page = write(run).read_text()
    assert "Round 1 was skipped: none of 12 prompts" in page
    assert run.incumbent() == ("rounds/002" if second["decision"] == "promoted" else "rounds/000")
    assert decision(run.records(), "rounds/001") == "skipped"


def test_a_skipped_round_stays_skipped_on_resume(tmp_path: Path) -> None:
    recipe = parse(POINTS + SCORED.replace("count: 2", "count: 1"), "recipe.yaml")
    run = loop.run(recipe, tmp_path)
    before = {record.step: record.started for record in run.records("rounds/001")}
    Equal.spread = True
    assert loop.run(recipe, tmp_path).state.state == "done"
    assert {record.step: record.started for record in run.records("rounds/001")} == before


def test_online_training_on_equal_rewards_is_skipped(tmp_path: Path) -> None:
    run = loop.run(parse(POINTS + ONLINE, "recipe.yaml"), tmp_path)
    assert "in all 3 steps the candidates of every prompt had equal rewards" in _skipped(run, 1)
    assert len(parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")) == 3 * 8 * 2


@pytest.mark.parametrize("objective", ["rloo", "grpo"])
def test_rollouts_of_one_reward_are_skipped(objective: str, tmp_path: Path) -> None:
    text = ONLINE.replace("dpo", f"{{name: {objective}, beta: 0.1}}")
    text = text.replace("{steps: 2}}", "{steps: 2, sampler: ancestral}}")
    run = loop.run(parse(POINTS + text, "recipe.yaml"), tmp_path)
    assert "the candidates of every prompt had equal rewards" in _skipped(run, 1)
    assert run.incumbent() == "rounds/000"


def test_a_stage_on_ties_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ties.jsonl"
    rows = [{"prompt": str(n), "chosen": f"a{n}", "rejected": f"b{n}", "tie": True} for n in range(30)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    text = f"""
name: ties
threads: 1
data: {{name: preferences, path: {path}, held_out: 0.2}}
models:
  policy:
    name: causal_lm
    config: {{model_type: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2}}
stages: {{name: dpo, objective: dpo, steps: 2, batch_size: 8}}
"""
    with pytest.raises(RunError, match="every group is a tie"):
        loop.run(parse(text, "recipe.yaml"), tmp_path / "runs")


@pytest.mark.parametrize(("wrong", "at"), [("false", 0.0), ("true", 0.0), ("false", 99.0), ("true", 99.0)])
def test_best_of_n_keeps_no_wrong_answer_unless_the_recipe_says_so(wrong: str, at: float, tmp_path: Path) -> None:
    text = (POINTS + VERIFIED).replace("AT", str(at)).replace("best_of_n}", f"best_of_n, wrong: {wrong}}}")
    run = loop.run(parse(text, "recipe.yaml"), tmp_path)
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    right = samples.content[:, 0] > at
    solved = len(np.unique(samples.group[right]))
    record = run.done("rounds/001", "curate")
    assert record is not None and record.counts["kept_right"] == solved
    kept = 40 if wrong == "true" else solved
    assert record.counts["kept"] == kept
    if kept:
        assert record.info["share_right"] == pytest.approx(solved / kept)
        assert f"{solved} ({100 * solved / kept:.0f}%)" in write(run).read_text()
    else:
        assert "nothing was kept" in _skipped(run, 1)


def test_the_right_answer_wins_over_a_wrong_one_of_higher_reward() -> None:
    prompts = [Prompt("a"), Prompt("b")]
    samples = synthetic_samples("points", np.zeros((6, 1), np.float32), prompts, np.arange(6).reshape(2, 3), "m")
    rewards = np.array([3.0, 1.0, 2.0, 5.0, 4.0, np.nan])
    verified = samples.with_fields(verified=np.array([0.0, 1.0, 1.0, 0.0, 0.0, np.nan]))
    found = BestOfN().curate(verified, rewards, None, 0)  # type: ignore[arg-type]
    assert found.kept.tolist() == [False, False, True, False, False, False]
    assert found.reasons[[0, 3, 4]].tolist() == ["best_of_n: wrong"] * 3 and found.reasons[5] == "unscored"
    every = BestOfN(wrong=True).curate(verified, rewards, None, 0)  # type: ignore[arg-type]
    assert every.kept.tolist() == [True, False, False, True, False, False]
