"""Preference files through the whole loop: every objective on groups, in a stage or in the fit of a reward model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upturn.config import components
from upturn.config.recipe import parse
from upturn.data.groups import first_of_each, preferred, whole
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm
from upturn.observer import Observer
from upturn.plan import plan
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Prompt, Samples, real_samples

_ROWS = 60
_CONFIG = (
    "{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 1}"
)


def _pair(n: int) -> dict[str, Any]:
    """The chosen answer is shorter; every sixth pair is a tie."""
    prompt = f"{n} and {n * 7 % 10}"
    row = {"prompt": prompt, "chosen": f"sum {n}", "rejected": f"the sum of {prompt}", "chosen_score": 2.0 + n % 3}
    return {**row, "rejected_score": 1.0, "strength": 0.5, "tie": n % 6 == 5}


def _list(n: int) -> dict[str, Any]:
    texts = [f"sum {n}", f"of {n} it is", f"the sum of {n} and more", f"{n} {n} {n} {n} {n} {n}"][: 3 + n % 2]
    ranks = [1, 2, 3, 4][: len(texts)]
    order = np.random.default_rng(n).permutation(len(texts))
    return {
        "prompt": f"{n} and {n * 7 % 10}", "completions": [texts[i] for i in order],
        "ranks": [ranks[i] for i in order], "scores": [5.0 - ranks[i] for i in order],
    }


def _label(n: int) -> dict[str, Any]:
    good = n % 2 == 0
    return {"prompt": f"{n} and {n * 7 % 10}", "completion": f"sum {n}" if good else f"the sum of {n}", "label": good}


_LAYOUTS = {"pair": _pair, "list": _list, "label": _label}
_NOT_PAIRS = {  # objective -> (layout, its fields beside the name)
    "plackett_luce": ("list", ""), "listwise": ("list", ""), "reward_weighted": ("list", ""), "unpaired": ("label", ""),
    "kto": ("label", ""),
}
_OF_GROUPS = [
    name for name in components.names("objective") if components.find("objective", name).example == "group"
]


def _written(folder: Path, layout: str, rows: int = _ROWS) -> Path:
    path = folder / f"{layout}.jsonl"
    path.write_text("".join(json.dumps(_LAYOUTS[layout](n)) + "\n" for n in range(rows)), encoding="utf-8")
    return path


def _recipe(path: Path, stages: str, more: str = "", metrics: str = "[held_out_loss]") -> Any:
    return parse(f"""
name: preferences
threads: 1
data: {{name: preferences, path: {path}, held_out: 0.2}}
models:
  policy: {{name: causal_lm, config: {_CONFIG}, max_length: 48}}
{more}
stages: {stages}
evaluate: {{prompts: 8, metrics: {metrics}, settings: {{max_tokens: 4}}}}
grid: {{prompts: 2, per_prompt: 1}}
""", "recipe.yaml")


def _training(objective: str) -> str:
    return f"objective: {objective}, epochs: 4, batch_size: 16, learning_rate: 1.0e-2, schedule: constant"


def _points(run: Run, unit: str) -> list[dict[str, float]]:
    return json.loads((run.unit(unit) / "losses.json").read_text())


def _whole_groups(run: Run, unit: str, layout: str) -> list[set[str]]:
    """The candidates of each group of a mixture, as texts."""
    samples = parquet_tables.read_mixture(run, run.unit(unit) / "mixture.parquet").samples
    return [set(samples.content[samples.group == group]) for group in np.unique(samples.group)]


def _candidates(row: dict[str, Any]) -> set[str]:
    return set(row.get("completions") or [row[k] for k in ("chosen", "rejected", "completion") if k in row])


@pytest.mark.slow
@pytest.mark.parametrize("name", _OF_GROUPS)
def test_every_objective_on_groups_learns_from_a_preference_file(name: str, tmp_path: Path) -> None:
    """Groups arrive as they are in the file, the loss falls, and plan counts the steps that are run."""
    layout, fields = _NOT_PAIRS.get(name, ("pair", ""))
    path = _written(tmp_path, layout)
    rewards = "reward" in components.find("objective", name).accepts
    training = _training(f"{{name: {name}{fields}}}")
    if rewards:
        model = f"  judge: {{name: reward_text, config: {_CONFIG}, max_length: 48, fit: {{{training}}}}}"
        recipe, unit, step = _recipe(path, "[{name: sft, steps: 1}]", model), "models/judge", "fit"
    else:
        recipe, unit, step = _recipe(path, f"[{{name: learn, {training}}}]"), "rounds/000/learn", "train"
    run = loop.run(recipe, tmp_path / "runs")
    assert run.state.state == "done"
    groups = _whole_groups(run, unit, layout)
    of_file = [_candidates(_LAYOUTS[layout](n)) for n in range(_ROWS)]
    assert len(groups) > 30 and all(group in of_file for group in groups)
    points, record = _points(run, unit), run.done(unit, step)
    assert record is not None and points[-1]["loss"] < points[0]["loss"]
    planned = {(row.unit, row.step): row.optimiser_steps for row in plan(recipe).rows}
    assert planned[unit, step] == record.info["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), [("dpo", math.log(2)), ("ipo", 1 / (4 * 0.1**2)), ("rpo", None)])
def test_the_first_loss_of_a_policy_that_is_its_reference_is_known(
    name: str, first: float | None, tmp_path: Path
) -> None:
    """All log-ratios are 0: -log sigmoid 0 (DPO), (0 - 1 / 2 beta)^2 (IPO), KL(Bernoulli(gap) || 1/2) (RPO)."""
    path = _written(tmp_path, "pair")
    stage = f"[{{name: learn, objective: {{name: {name}, beta: 0.1}}, steps: 1, batch_size: 64}}]"
    run = loop.run(_recipe(path, stage), tmp_path / "runs")
    if first is None:
        mixture = parquet_tables.read_mixture(run, run.unit("rounds/000/learn") / "mixture.parquet").samples
        kept = mixture.candidate == 0
        p = 1 / (1 + np.exp(-(mixture.fields["score"][kept] - 1.0)))
        first = float(np.mean(np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p)))
    assert _points(run, "rounds/000/learn")[0]["loss"] == pytest.approx(first, rel=1e-4)


class Notes(Observer):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, text: str) -> None:
        self.noted.append(text)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pair", "label"])
def test_likelihood_learns_what_was_chosen(layout: str, tmp_path: Path) -> None:
    """Chosen, tied and good candidates, of the file's training part; the held-out loss is of the same kind."""
    path, notes = _written(tmp_path, layout), Notes()
    run = loop.run(_recipe(path, "[{name: sft, steps: 3, batch_size: 16}]"), tmp_path / "runs", notes)
    data = parquet_tables.read_samples(run.unit("data") / "samples.parquet")
    wanted = {(row["prompt"], text) for n in range(_ROWS) for row in [_LAYOUTS[layout](n)]
              for text, good in _judged(row) if good}
    train = data.take(data.fields["split"].astype(str) == "train")
    mixture = parquet_tables.read_mixture(run, run.unit("rounds/000/sft") / "mixture.parquet").samples
    found = [(p.text, t) for p, t in zip(mixture.prompts, mixture.content, strict=True)]
    assert found == [(p.text, t) for p, t in zip(train.prompts, train.content, strict=True) if (p.text, t) in wanted]
    assert 0 < len(found) < len(train) and any("are learned" in note for note in notes.noted)
    held_out = data.take(data.fields["split"].astype(str) == "held_out")
    good = np.array([(p.text, t) in wanted for p, t in zip(held_out.prompts, held_out.content, strict=True)])
    model = CausalLm(folder=str(run.unit("rounds/000") / "model"), max_length=48)
    model.load(run.unit("rounds/000") / "model")
    batch = model.encode(held_out.take(good))
    with torch.no_grad():
        out = model.forward(batch.take(torch.arange(int(good.sum()))), None)
    own = -(out.log_probs * out.mask).sum(dim=1) / out.mask.sum(dim=1)
    metrics = json.loads((run.unit("rounds/000") / "metrics.json").read_text())
    assert metrics["held_out_loss"]["n"] == good.sum()
    assert metrics["held_out_loss"]["value"] == pytest.approx(float(own.mean()), rel=1e-4)


def _judged(row: dict[str, Any]) -> list[tuple[str, bool]]:
    if "label" in row:
        return [(row["completion"], row["label"])]
    return [(row["chosen"], True), (row["rejected"], row["tie"])]


@pytest.mark.slow
def test_likelihood_and_dpo_together_in_rounds_with_real_preferences(tmp_path: Path) -> None:
    """A round mixes in what was chosen, its prompts are drawn once each, and a reward model scores it."""
    path = _written(tmp_path, "pair")
    fit = f"  judge: {{name: reward_text, config: {_CONFIG}, max_length: 48, fit: {{{_training('bradley_terry')}}}}}"
    text = "[{name: sft, steps: 2, batch_size: 16}, {name: dpo, objective: dpo, steps: 2, batch_size: 16}]"
    rounds = """
rounds:
  count: 1
  sample: {prompts: 30, candidates: 2, settings: {max_tokens: 4}}
  score: {name: reward_model, model: judge}
  curate: best_of_n
  mix: {lambda: 1.0}
  train: {steps: 2, batch_size: 16}
"""
    recipe = parse(_yaml(_recipe(path, text, fit)) + rounds, "recipe.yaml")
    run = loop.run(recipe, tmp_path / "runs")
    assert run.state.state == "done"
    judge = run.done("models/judge", "fit")
    assert judge is not None and judge.info["assessment"]["pairs"] > 0
    sampled = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    data = parquet_tables.read_samples(run.unit("data") / "samples.parquet")
    groups = len(np.unique(data.group[data.fields["split"].astype(str) == "train"]))
    assert len({prompt.text for prompt in sampled.prompts}) == min(30, groups)
    mixture = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet").samples
    real = set(mixture.content[mixture.origin == "real"])
    rejected = {_pair(n)["rejected"] for n in range(_ROWS) if not _pair(n)["tie"]}
    assert real and not real & rejected


def _yaml(recipe: Any) -> str:
    import yaml

    tree = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return yaml.safe_dump(tree)


@pytest.mark.slow
def test_a_filter_keeps_comparisons_whole(tmp_path: Path) -> None:
    path = _written(tmp_path, "pair")
    text = _yaml(_recipe(path, "[{name: dpo, objective: dpo, steps: 1, batch_size: 16}]"))
    text += "filter: {score: {name: length, scale: -1.0}, curate: {name: threshold, at_least: -0.0185}}\n"
    run = loop.run(parse(text, "recipe.yaml"), tmp_path / "runs")
    record = run.done("data", "filter")
    assert record is not None and record.info["dropped"]["another candidate of its comparison is dropped"] > 0
    groups = _whole_groups(run, "rounds/000/dpo", "pair")
    assert groups and all(len(group) == 2 for group in groups) and len(groups) * 2 == record.counts["kept"]


def _ranked(ranks: list[list[int]]) -> Samples:
    flat = [rank for group in ranks for rank in group]
    samples = real_samples("text", [str(i) for i in range(len(flat))], [Prompt("p")] * len(flat), "s")
    group = np.repeat(np.arange(len(ranks)) * 3, [len(group) for group in ranks])
    return Samples(
        samples.kind, samples.ids, samples.prompts, samples.content, samples.origin, samples.source, group,
        np.concatenate([np.arange(len(group)) for group in ranks]), {"rank": np.array(flat)},
    )


def test_which_candidates_imitation_learns() -> None:
    """A pair, a tie, a pick, a good and a bad label, an unranked pair, a ranking without a first."""
    samples = _ranked([[2, 1], [1, 1], [0, 1, 0], [1], [2], [0, 0], [3, 2, 2], [0]])
    assert preferred(samples).astype(int).tolist() == [0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1]
    without = real_samples("text", ["a", "b"], [Prompt("p"), Prompt("q")], "s")
    assert preferred(without).all() and first_of_each(without).tolist() == [0, 1]


def test_groups_are_whole_or_gone() -> None:
    samples = _ranked([[1, 2], [1], [1, 2, 3]])
    assert first_of_each(samples).tolist() == [0, 2, 3]
    kept = np.array([True, True, True, True, False, True])
    assert whole(samples, kept).astype(int).tolist() == [1, 1, 1, 0, 0, 0]
    assert whole(samples.take([]), np.zeros(0, dtype=bool)).tolist() == []
