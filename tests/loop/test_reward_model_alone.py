"""A reward model or a classifier as what a recipe trains, and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from helpers.tiny_language_models import trained
from upturn.cli import app
from upturn.config.recipe import Recipe, parse
from upturn.embeddings.rewards import rewarded
from upturn.errors import UserError
from upturn.export.run_export import export
from upturn.loop import loop
from upturn.loop.assembly import load_model
from upturn.loop.run_context import RunContext
from upturn.plan import plan
from upturn.report import write
from upturn.runs import status
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash

pytestmark = pytest.mark.slow


def _recipe(folder: Path, adapter: str = "full", more: str = "", base: Path | None = None) -> Recipe:
    path = folder / "pairs.jsonl"
    rows = [{"prompt": f"{n}+{n}=", "chosen": f"{2 * n}", "rejected": f"{n}+{n}+{n}={3 * n}"} for n in range(80)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    weights = f"folder: {base}" if base else (
        "config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
        "num_attention_heads: 2}"
    )
    return parse(f"""
name: reward
threads: 1
data: {{name: preferences, path: {path}, held_out: 0.2}}
models:
  reward:
    name: reward_text
    {weights}
    max_length: 48
    fit: {{objective: bradley_terry, adapter: {adapter}, epochs: 6, batch_size: 16, learning_rate: 1.0e-2}}
{more}""", "recipe.yaml")


@pytest.mark.parametrize("adapter", ["full", "{name: lora, rank: 2}"])
def test_a_reward_model_is_trained_and_exported(adapter: str, tmp_path: Path) -> None:
    """What transformers opens gives the scores of the run's model, and the held-out pairs are ordered right."""
    import transformers

    base = tmp_path / "base"
    trained(20).save(base)
    recipe = _recipe(tmp_path, adapter, base=base)
    run = loop.run(recipe, tmp_path / "runs")
    seen = status.read(run)
    assert seen.state == "done" and seen.rounds[0].state == "done"
    planned = {(row.unit, row.step): row.optimiser_steps for row in plan(recipe).rows}
    record = run.done("models/reward", "fit")
    assert record is not None and planned["models/reward", "fit"] == record.info["steps"]
    assert record.info["assessment"]["accuracy"]["value"] > 0.9
    page = write(run).read_text()
    assert "'reward' is trained" in page.replace("&#39;", "'") and "right" in page
    out = tmp_path / "export"
    state = CliRunner().invoke(app, ["status", "reward", "--runs", str(tmp_path / "runs")]).output
    assert "reward: done. 'reward' is trained: it orders" in state
    done = CliRunner().invoke(app, ["export", "reward", "--what", "model", "--to", str(out), "--runs",
                                    str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    model = load_model(RunContext.open(run).parts, "reward", run.unit("models/reward") / "model", "m")
    data = parquet_tables.read_samples(run.unit("data") / "samples.parquet").take(np.arange(12))
    own = rewarded(model, "reward", data)
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(out / "model")
    batch = model.encode(data)
    with torch.no_grad():
        scores = [
            float(opened(input_ids=batch.columns["tokens"].pad(torch.tensor([row]))).logits[0, 0])  # type: ignore[union-attr]
            for row in range(len(data))
        ]
    np.testing.assert_allclose(scores, own, rtol=1e-4, atol=1e-5)
    transformers.AutoTokenizer.from_pretrained(out / "model")


def test_a_classifier_is_trained_alone(tmp_path: Path) -> None:
    text = """
name: classes
threads: 1
data: {name: digits}
models: {judge: {name: classifier, fit: {steps: 20, batch_size: 32}}}
"""
    run = loop.run(parse(text, "recipe.yaml"), tmp_path)
    assert (run.unit("models/judge") / "model").is_dir() and status.read(run).rounds[0].state == "done"
    assert plan(parse(text, "recipe.yaml")).rows


@pytest.mark.parametrize(("more", "words"), [
    ("stages: [{name: sft, steps: 1}]", ["stages", "is of a policy"]),
    ("evaluate: {metrics: [held_out_loss]}", ["evaluate", "is of a policy"]),
    ("gate: {metric: reward}", ["gate", "is of a policy"]),
])
def test_what_is_of_a_policy_is_refused_without_one(more: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        _recipe(tmp_path, more=more)
    assert all(word in str(error.value) for word in words)


def test_a_model_without_comparisons_in_the_data_is_refused(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    other = recipe.model_copy(update={"data": {"name": "equations", "count": 50}})
    with pytest.raises(UserError, match="learns from comparisons"):
        loop.run(other, tmp_path / "runs")


def test_a_helper_model_of_a_run_with_a_policy_is_exported_by_name(tmp_path: Path) -> None:
    text = """
name: both
threads: 1
data: {name: digits}
models:
  policy: {name: pixels, size: 8, network: {name: mlp, width: 16, depth: 1}}
  judge: {name: classifier, fit: {steps: 2, batch_size: 32}}
stages: [{name: pretrain, steps: 2, batch_size: 32}]
"""
    run = loop.run(parse(text, "recipe.yaml"), tmp_path / "runs")
    for name, unit in (("policy", "rounds/000"), ("judge", "models/judge")):
        export(run, "model", tmp_path / name, model=name)
        assert tree_hash(tmp_path / name / "model") == tree_hash(run.unit(unit) / "model")
    with pytest.raises(UserError, match="no model 'other'"):
        export(run, "model", tmp_path / "other", model="other")
