"""Tests of rounds that train on rewards and preferences: online, in several trainings, with a reward model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers import child_process as children
from helpers.small_recipes import small
from upturn.errors import UserError
from upturn.loop import loop
from upturn.observer import Observer
from upturn.report import write
from upturn.runs import status
from upturn.store import lineage, parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run
from upturn.types import Batch

pytestmark = pytest.mark.slow

ONLINE = """
name: online
threads: 1
data: {name: points, shape: eight_gaussians, n: 400}
models: {policy: {name: points, network: {name: mlp, width: 32, depth: 2}}}
features: points
stages: [{name: pretrain, steps: 200, batch_size: 64, learning_rate: 2.0e-3}]
rounds:
  count: 2
  score: {name: closeness, to: [4.0, 0.0], width: 4.0}
  train:
    objective: {name: rloo, beta: 0.0}
    online: {prompts: 24, candidates: 8, settings: {steps: 5, sampler: ancestral}}
    steps: 40
    batch_size: 24
    learning_rate: 1.0e-3
    schedule: constant
    save_every: 5
evaluate: {prompts: 200, metrics: [reward, coverage], settings: {steps: 5, sampler: ancestral}}
gate: {metric: reward}
"""

ROUNDS = """
name: rounds
threads: 1
data: {name: points, shape: eight_gaussians, n: 400}
models: {policy: {name: points, network: {name: mlp, width: 32, depth: 2}}}
features: points
stages: [{name: pretrain, steps: 200, batch_size: 64, learning_rate: 2.0e-3}]
rounds:
  count: 2
  sample: {prompts: 64, candidates: 4, settings: {steps: 5}}
  score: {name: closeness, to: [4.0, 0.0], width: 4.0}
  curate: best_of_n
  mix: {policy: replace, lambda: 1.0}
  train:
    - {name: best, objective: likelihood, steps: 30, batch_size: 32}
    - {name: preferences, objective: {name: dpo, beta: 0.5}, steps: 20, batch_size: 32, learning_rate: 1.0e-3}
evaluate: {prompts: 200, metrics: [reward, coverage], settings: {steps: 5}}
gate: {metric: reward}
"""


class Notes(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(small(ONLINE), tmp_path_factory.mktemp("online"))


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(small(ROUNDS), tmp_path_factory.mktemp("rounds"))


@pytest.mark.long
def test_an_online_round_keeps_all_that_it_drew(online: Run) -> None:
    """40 steps, each on a draw of its own of 24 prompts x 8."""
    unit = online.unit("rounds/001")
    samples = parquet_tables.read_samples(unit / "samples.parquet")
    assert len(samples) == 40 * 24 * 8
    assert np.bincount(samples.fields["draw"].astype(int)).tolist() == [192] * 40
    assert len(np.unique(samples.group)) == 40 * 24 and len(set(samples.ids)) == len(samples)
    scores = parquet_tables.read_scores(unit / "scores.parquet", samples.ids)["closeness"].values
    expected = np.exp(-((samples.content.astype(float) - [4.0, 0.0]) ** 2).sum(axis=1) / (2 * 4.0**2))
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    record = online.done("rounds/001", "train")
    assert record is not None and record.info["reward_at_first"] < record.info["reward"]
    assert not list(unit.glob(".train-progress"))


@pytest.mark.long
def test_an_online_round_has_its_ancestry_and_its_report(online: Run) -> None:
    samples = parquet_tables.read_samples(online.unit("rounds/002") / "samples.parquet")
    assert "rounds/000" in json.dumps(lineage.trace(online, str(samples.ids[0])), default=vars)
    seen = status.read(online)
    assert seen.rounds[1].real_fraction == 0.0
    page = write(online).read_text()
    assert "rloo" in page and "sample repeatedly" in page


def test_the_reward_of_an_online_run_rises_and_the_gate_promotes_it(online: Run) -> None:
    """Pain 10: of what was trained, the gate keeps what the reward says is better."""
    seen = status.read(online)
    first, last = (seen.rounds[n].metrics["reward"] for n in (0, 1))
    assert last["low"] > first["high"]
    assert seen.rounds[1].gate is not None and seen.rounds[1].gate["decision"] == "promoted"


def test_pain_10_the_best_round_is_chosen_by_reward(online: Run) -> None:
    seen = status.read(online)
    promoted = [r for r in seen.rounds[1:] if r.gate and r.gate["decision"] == "promoted"]
    assert seen.incumbent.round == promoted[-1].round
    assert seen.incumbent.metrics["reward"]["value"] == max(r.metrics["reward"]["value"] for r in promoted)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.0, 2.0])
def test_an_online_run_killed_anywhere_resumes_to_the_same_bytes(seconds: float, online: Run, tmp_path: Path) -> None:
    process = children.start(ONLINE, tmp_path)
    process.join(timeout=seconds)
    process.kill()
    process.join()
    again = loop.run(small(ONLINE), tmp_path)
    for unit in ("rounds/000/pretrain", "rounds/001", "rounds/002"):
        assert tree_hash(again.unit(unit) / "model") == tree_hash(online.unit(unit) / "model"), unit
        if unit.count("/") == 1:
            files = [r.unit(unit) / "samples.parquet" for r in (again, online)]
            drawn = [parquet_tables.read_samples(file).ids.tolist() for file in files]
            assert drawn[0] == drawn[1]


@pytest.mark.long
def test_a_round_of_two_trainings(rounds: Run) -> None:
    """Likelihood on the best, then DPO from there: each has its mixture, its weights and its parent."""
    first, second = rounds.done("rounds/001/best", "train"), rounds.done("rounds/001", "train")
    assert first is not None and second is not None
    assert second.info["parent"] == first.info["model"]
    best = parquet_tables.read_mixture(rounds, rounds.unit("rounds/001/best") / "mixture.parquet").samples
    pairs = parquet_tables.read_mixture(rounds, rounds.unit("rounds/001") / "mixture.parquet").samples
    real = len(parquet_tables.read_mixture(rounds, rounds.unit("rounds/000/pretrain") / "mixture.parquet").samples)
    assert (best.origin == "real").sum() == real and (best.origin == "synthetic").sum() == 64  # the best of each prompt
    rank, score = (pairs.fields[name].astype(float) for name in ("rank", "score"))
    assert (rank[::2] == 1).all() and (rank[1::2] > 1).all() and (score[::2] > score[1::2]).all()
    assert (pairs.group[::2] == pairs.group[1::2]).all()
    assert {"chosen_change", "rejected_change"} <= second.info.keys()
    write(rounds)


def test_the_weights_of_a_training_within_a_round_go_with_the_round(rounds: Run) -> None:
    from upturn.store import retention

    assert rounds.incumbent() in {"rounds/000", "rounds/001", "rounds/002", "rounds/000/pretrain"}
    records = rounds.records()
    assert retention.decision(records, "rounds/001/best") == retention.decision(records, "rounds/001") is not None


@pytest.mark.long
def test_a_reward_model_that_follows_the_policy(tmp_path: Path) -> None:
    """On digits: judges compare 40 prompts' candidates, the model learned from them scores all of them."""
    text = """
name: follows
threads: 1
data: digits
models:
  policy: {name: pixels, classes: 10, network: {name: mlp, width: 64, depth: 2}}
  reward:
    name: reward_image
    refit: {score: ink, prompts: 40, objective: bradley_terry, epochs: 10, batch_size: 20, learning_rate: 3.0e-3}
stages: [{name: pretrain, steps: 200, batch_size: 64, learning_rate: 2.0e-3}]
rounds:
  count: 2
  sample: {prompts: 80, candidates: 4, settings: {steps: 5}}
  score: {name: reward_model, model: reward}
  curate: best_of_n
  train: {steps: 20, batch_size: 64}
evaluate:
  prompts: 60
  candidates: 2
  settings: {steps: 5}
  metrics: [reward, {name: gold_reward, scorer: ink}, {name: reward_accuracy, scorer: ink}]
gate: {metric: gold_reward}
"""
    run = loop.run(small(text), tmp_path)
    files = [run.unit(f"rounds/00{n}/reward") / "mixture.parquet" for n in (1, 2)]
    judged = [parquet_tables.read_mixture(run, file).samples for file in files]
    assert [len(j) for j in judged] == [160, 320]  # what was judged before stays
    seen = status.read(run)
    assert seen.rounds[0].metrics["reward"]["value"] is None  # no reward model yet: it says so
    last = seen.rounds[2].metrics["reward_accuracy"]
    assert last["low"] > 0.5  # it orders candidates as the judge does, beyond chance
    assert run.done("rounds/001/reward", "fit").info["model"] != run.done("rounds/002/reward", "fit").info["model"]  # type: ignore[union-attr]
    write(run)


# what must be loud


def test_pain_9_a_kl_beyond_the_limit_stops_the_round(tmp_path: Path) -> None:
    notes = Notes()
    recipe = small(ONLINE, "rounds.count=1", "rounds.train.kl_limit=0.001", "rounds.train.learning_rate=0.01")
    run = loop.run(recipe, tmp_path, notes)
    record = run.done("rounds/001", "train")
    assert record is not None and 1 < record.info["steps"] < 40 and "kl_limit" in record.info["stopped"]
    assert any("kl_limit" in said for said in notes.said)
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    assert samples.fields["draw"].max() == record.info["steps"] - 1  # only what was learned from is kept


def test_pain_9_groups_without_spread_are_counted_and_reported(tmp_path: Path) -> None:
    """A reward that is nearly always zero: most groups have no spread."""
    notes = Notes()
    recipe = small(ONLINE, "rounds.count=1", "rounds.train.steps=4",
                   "rounds.score={name: closeness, to: [400.0, 0.0], width: 0.1}")
    run = loop.run(recipe, tmp_path, notes)
    record = run.done("rounds/001", "train")
    assert record is not None and record.info["groups_without_spread"] == 4 * 24
    assert any("do not train: they have equal rewards" in said for said in notes.said)


def test_pain_9_preferences_without_spread_skip_the_round(tmp_path: Path) -> None:
    """Training stops once an epoch held nothing to learn, and the round is skipped with this reason."""
    recipe = small(
        ONLINE, "rounds.count=1", "rounds.train.steps=40", "rounds.train.objective={name: dpo, beta: 0.1}",
        "rounds.train.online.settings={steps: 5}", "rounds.score={name: closeness, to: [400.0, 0.0], width: 0.1}",
    )
    run = loop.run(recipe, tmp_path)
    train, gate = run.done("rounds/001", "train"), run.done("rounds/001", "gate")
    assert train is not None and train.info["steps"] == train.info["idle_steps"] < 40
    assert gate is not None and gate.info["decision"] == "skipped" and run.incumbent() == "rounds/000"


def test_the_drift_between_sampler_and_trainer_is_in_every_record(online: Run) -> None:
    record = online.done("rounds/001", "train")
    assert record is not None and 0 <= record.info["drift"] < 1e-3


def test_a_draw_may_be_gone_through_more_than_once(tmp_path: Path) -> None:
    """Two passes in halves: four steps a draw; states are saved between draws only, where a resume can begin."""
    recipe = small(ONLINE, "rounds.count=1", "rounds.train.steps=8", "rounds.train.online.passes=2",
                   "rounds.train.batch_size=12", "rounds.train.learning_rate=1.0e-5")
    run = loop.run(recipe, tmp_path)
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    assert np.bincount(samples.fields["draw"].astype(int)).tolist() == [192, 192]


@pytest.mark.parametrize(("settings", "words"), [
    (["rounds.train.online=null"], "online"),
    (["rounds.score=[]"], "Add 'score:'"),
    (["rounds.train.objective=ppo"], "value head"),
    (["rounds.sample={prompts: 10}"], "takes no other training"),
    (["stages.0.objective=dpo"], "comparisons"),
    (["rounds.train.kl_limit=1.0", "rounds.train.objective={name: dpo}", "rounds.train.online.settings={steps: 5}"],
     "does not measure a KL"),
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(settings: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        loop.run(small(ONLINE, *settings), tmp_path)


def test_idle_steps_that_are_not_consecutive_do_not_end_a_stage() -> None:
    """Every second draw is all ties: counted, also under a KL limit; twelve in all, never two in a row."""
    import torch

    from helpers.line_model import Line, examples
    from upturn.adapters.full import Full
    from upturn.config.schema import Training
    from upturn.objectives.kto import Kto
    from upturn.training import trainer
    from upturn.training.feeds import OnlineFeed
    from upturn.training.setup import TrainingSetup

    def draw(number: int) -> Batch:
        label = 0 if number % 2 else 1
        return examples(4, candidates=2, given={"ranks": np.tile([[label, 0]], (4, 1))})

    model = Line(noisy=False)
    spec = Training(steps=24, batch_size=4, learning_rate=1e-3, kl_limit=1e6)
    history = trainer.train(model, TrainingSetup(
        spec=spec, objective=Kto(), adapter=Full(), feed=OnlineFeed(draw, 4, 4, 1, 3), key=3, where="test"))
    assert history.steps == 24 and history.idle == 12 and not history.stopped
    assert all(bool(torch.isfinite(p).all()) for p in model.module.parameters())
