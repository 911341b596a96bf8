"""Tests of the loop with points, images and text, and of optional sections of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.small_recipes import GAUSSIAN, POINTS, small
from helpers.text_recipes import TEXT
from upturn.loop import loop
from upturn.runs import status
from upturn.store import parquet_tables

pytestmark = pytest.mark.slow

PIXELS = """
name: pixels
threads: 1
data: digits
models:
  policy: {name: pixels, classes: 10, network: {name: mlp, width: 32, depth: 1}}
stages: [{name: pretrain, steps: 20, batch_size: 64}]
rounds:
  count: 1
  sample: {prompts: 40, candidates: 3, settings: {steps: 3}}
  score: ink
  mix: {policy: replace, lambda: 1.0}
  train: {steps: 5, batch_size: 16, objective: dpo}
evaluate: {prompts: 40, metrics: [reward, held_out_loss], settings: {steps: 3}}
grid: {prompts: 3, per_prompt: 2}
"""


DPO_POINTS = POINTS.replace("curate: [deduplicate, choice]", "curate: []").replace(
    "train: {steps: 20, batch_size: 64,", "train: {steps: 20, batch_size: 16, objective: {name: dpo, beta: 1.0},"
)


@pytest.mark.parametrize("text", [DPO_POINTS, PIXELS, TEXT], ids=["points", "pixels", "text"])
@pytest.mark.parametrize("objective", ["dpo", "likelihood"])
def test_one_file_trains_every_kind(text: str, objective: str, tmp_path: Path) -> None:
    run = loop.run(small(text, f"rounds.train.objective={objective}"), tmp_path)
    mixture = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet")
    before, after = (json.loads((run.unit(u) / "stages" / f"{s}.json").read_text())["info"]["model"]
                     for u, s in (("rounds/000", "base"), ("rounds/001", "train")))
    assert before != after
    if objective == "dpo":
        # pairs of one prompt, the better first, as the scores on disk say
        samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
        reward = dict(zip(samples.ids, parquet_tables.read_scores(
            run.unit("rounds/001") / "scores.parquet", samples.ids).popitem()[1].values, strict=True))
        group = dict(zip(samples.ids, samples.group, strict=True))
        chosen, rejected = mixture.samples.ids[::2], mixture.samples.ids[1::2]
        assert len(chosen) == len(rejected) > 0
        assert all(reward[a] > reward[b] and group[a] == group[b] for a, b in zip(chosen, rejected, strict=True))
        points = json.loads((run.unit("rounds/001") / "losses.json").read_text())
        assert {"accuracy", "margin", "chosen_reward", "rejected_reward"} <= points[-1].keys()
    assert (run.folder / "rounds" / "001" / "metrics.json").is_file()


@pytest.mark.long
def test_dpo_moves_points_where_the_reward_is(tmp_path: Path) -> None:
    """The mean reward over fixed noise rises by more than 3 standard errors of the paired difference."""
    more = ("rounds.count=1", "stages.pretrain.steps=300", "rounds.train.steps=60", "rounds.sample.prompts=200",
            "evaluate.prompts=300")
    run = loop.run(small(DPO_POINTS, *more), tmp_path)
    from upturn.store.values import read_values

    gap = (read_values(run.unit("rounds/001") / "values.parquet")["reward"]
           - read_values(run.unit("rounds/000") / "values.parquet")["reward"])
    assert gap.mean() > 3 * gap.std(ddof=1) / np.sqrt(len(gap))


def test_a_tracker_gets_the_loss_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = loop.run(small(POINTS, "tracker=tensorboard", "rounds.count=0"), tmp_path)
    [folder] = {p.parent for p in (run.folder / "tracking").rglob("events.*") if "pretrain" in str(p)}
    seen = EventAccumulator(str(folder))
    seen.Reload()
    points = json.loads((run.unit("rounds/000/pretrain") / "losses.json").read_text())
    assert [e.value for e in seen.Scalars("held_out")] == pytest.approx([p["held_out"] for p in points])
    lines = [json.loads(line) for line in (run.unit("rounds/000/pretrain") / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    for name in ("loss", "learning_rate"):
        assert [e.value for e in seen.Scalars(name)] == pytest.approx([line[name] for line in lines])


def test_keep_promoted_removes_the_weights_of_rejected_rounds_and_nothing_else(tmp_path: Path) -> None:
    run = loop.run(small(GAUSSIAN, "gate.guards={coverage: {at_least: 5.0}}", "keep.weights=promoted"), tmp_path)
    assert [r.gate["decision"] for r in status.read(run).rounds[1:]] == ["rejected"] * 3  # type: ignore[index]
    assert not any((run.unit(f"rounds/00{n}") / "model").exists() for n in (1, 2, 3))
    assert (run.unit("rounds/000") / "model").is_dir()
    assert all((run.unit(f"rounds/00{n}") / "samples.parquet").is_file() for n in (1, 2, 3))
    assert len(run.deletions()) == 3


def test_checkpoints_at_listed_epochs_are_models_with_images(tmp_path: Path) -> None:
    run = loop.run(small(POINTS, "rounds.count=0"), tmp_path)
    unit = run.unit("rounds/000/pretrain")
    assert sorted(p.name for p in (unit / "checkpoints").iterdir()) == ["epoch-0002", "epoch-0005"]
    previews = parquet_tables.read_samples(unit / "previews.parquet")
    grid = parquet_tables.read_samples(unit / "grid.parquet")
    assert sorted(set(previews.fields["epoch"])) == [2, 5]
    assert (previews.fields["key"][: len(grid)] == grid.fields["key"]).all()  # the same noise
