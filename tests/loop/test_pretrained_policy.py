"""A pre-trained policy: measured as it came, with stages or without, with rounds or without, without evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny_language_models import trained
from upturn.config.recipe import Recipe, parse
from upturn.errors import UserError
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm
from upturn.plan import plan
from upturn.report import write
from upturn.runs import status
from upturn.runs.new_samples import Drawer
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.columns import read_table
from upturn.store.run import Run

pytestmark = pytest.mark.slow

_EVALUATE = "evaluate: {prompts: 10, metrics: [held_out_loss, distinct], settings: {max_tokens: 6}}\n"
_STAGES = "stages: [{name: sft, steps: 60, batch_size: 16, learning_rate: 1.0e-2}]\n"
_ROUNDS = """
rounds:
  count: 1
  sample: {prompts: 20, candidates: 2, settings: {max_tokens: 6}}
  score: length
  curate: best_of_n
  train: {steps: 3, batch_size: 16}
"""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it, of a model that has learned a little."""
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    trained(20).save(folder)
    return folder


def _recipe(folder: Path, more: str, name: str = "chat") -> Recipe:
    text = f"""
name: {name}
threads: 1
data: {{name: equations, count: 120, operations: [1, 2], largest: 5, worked: 100}}
models: {{policy: {{name: causal_lm, folder: {folder}, max_length: 48}}}}
grid: {{prompts: 2, per_prompt: 1}}
"""
    return parse(text + more, "recipe.yaml")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    model = CausalLm(folder=str(folder))
    model.load(folder)
    return dict(model.module.state_dict())


def _loss(folder: Path, run: Run) -> float:
    """Held-out loss in nats a token, averaged over samples, by the model's own outputs."""
    model = CausalLm(folder=str(folder), max_length=48)
    model.load(folder)
    data = parquet_tables.read_samples(run.unit("data") / "samples.parquet")
    held_out = data.take(data.fields["split"].astype(str) == "held_out")
    with torch.no_grad():
        out = model.forward(model.encode(held_out).take(torch.arange(len(held_out))), None)
    return float((-(out.log_probs * out.mask).sum(dim=1) / out.mask.sum(dim=1)).mean())


@pytest.fixture(scope="module")
def tuned(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(_recipe(pretrained, _STAGES + _EVALUATE), tmp_path_factory.mktemp("runs"))


@pytest.mark.long
def test_the_model_as_it_came_is_measured_before_the_stages(tuned: Run, pretrained: Path) -> None:
    assert [s.name for s in status.read(tuned).rounds[0].stages] == ["base", "sft"]
    for name, tensor in _weights(pretrained).items():
        assert torch.equal(tensor, _weights(tuned.unit("rounds/000/base") / "model")[name])
    before, after = (
        json.loads((tuned.unit(f"rounds/000/{unit}") / "metrics.json").read_text())["held_out_loss"]["value"]
        for unit in ("base", "sft")
    )
    assert before == pytest.approx(_loss(pretrained, tuned), rel=1e-4)
    assert after == pytest.approx(_loss(tuned.unit("rounds/000") / "model", tuned), rel=1e-4) and after < before
    prompts = [parquet_tables.read_samples(tuned.unit(f"rounds/000/{unit}") / "evaluation.parquet").prompts
               for unit in ("base", "sft")]
    assert prompts[0] == prompts[1]


@pytest.mark.long
def test_the_report_says_what_the_stage_did(tuned: Run) -> None:
    page = write(tuned).read_text()
    metrics = [json.loads((tuned.unit(f"rounds/000/{unit}") / "metrics.json").read_text())["held_out_loss"]["value"]
               for unit in ("base", "sft")]
    part = page[page.index("What each stage did"):]
    row = part[part.index("base → sft"):]
    row = row[: row.index("</tr>")]
    assert f"{metrics[0]:.2f}" in row and f"{metrics[1]:.2f}" in row
    assert f">−{metrics[0] - metrics[1]:.2f} (" in row


def test_nothing_of_the_data_is_in_the_base(tuned: Run) -> None:
    assert len(read_table(tuned.unit("rounds/000/base") / "mixture.parquet")) == 0
    record = tuned.done("rounds/000/base", "train")
    assert record is not None and record.info["steps"] == 0 and record.info["parent"] is None


def test_the_measured_base_changes_no_weights(tuned: Run, pretrained: Path, tmp_path: Path) -> None:
    """The stage starts from the folder whether the model as it came was measured or not."""
    plain = loop.run(_recipe(pretrained, _STAGES), tmp_path)
    assert [s.name for s in status.read(plain).rounds[0].stages] == ["sft"]
    assert tree_hash(plain.unit("rounds/000") / "model") == tree_hash(tuned.unit("rounds/000") / "model")


@pytest.mark.long
def test_a_fine_tune_without_evaluation_has_its_losses_alone(pretrained: Path, tmp_path: Path) -> None:
    recipe = _recipe(pretrained, _STAGES)
    assert {row.step for row in plan(recipe).rows if row.unit.startswith("rounds/")} == {"train"}
    run = loop.run(recipe, tmp_path)
    seen = status.read(run)
    assert seen.state == "done" and seen.rounds[0].state == "done" and not seen.rounds[0].metrics
    assert json.loads((run.unit("rounds/000/sft") / "losses.json").read_text())[-1]["held_out"] > 0
    page = write(run).read_text()
    assert "Nothing is measured" in page and "held-out" in page
    assert len(Drawer(run, "rounds/000").draw(["1+1="], 2, 0)) == 2


@pytest.mark.long
def test_rounds_without_stages_start_from_the_model_as_it_came(pretrained: Path, tmp_path: Path) -> None:
    recipe = _recipe(pretrained, _ROUNDS + _EVALUATE + "gate: {metric: distinct}\n")
    run = loop.run(recipe, tmp_path)
    seen = status.read(run)
    assert seen.state == "done" and [s.name for s in seen.rounds[0].stages] == ["base"]
    sampled = run.done("rounds/001", "sample")
    zero = run.done("rounds/000", "base")
    assert sampled is not None and zero is not None and sampled.info["model"] == zero.info["model"]
    for name, tensor in _weights(pretrained).items():
        assert torch.equal(tensor, _weights(run.unit("rounds/000") / "model")[name])
    planned = {(row.unit, row.step) for row in plan(recipe).rows}
    assert {("rounds/000/base", "evaluate"), ("rounds/001", "train")} <= planned
    assert "the model after base" in write(run).read_text()


def test_neither_stages_nor_rounds_measures_the_model_as_it_came(pretrained: Path, tmp_path: Path) -> None:
    run = loop.run(_recipe(pretrained, _EVALUATE + "stages:\n"), tmp_path)
    assert status.read(run).rounds[0].metrics["held_out_loss"]["value"] == pytest.approx(
        _loss(pretrained, run), rel=1e-4
    )
    assert np.isfinite(run.done("rounds/000", "base").seconds)  # type: ignore[union-attr]


@pytest.mark.parametrize(("more", "words"), [
    ("", ["nothing to do", "stages"]),
    (_ROUNDS, ["evaluate", "is missing"]),
    (_STAGES + "gate: {metric: distinct}\n", ["gate", "'evaluate:' is missing"]),
    (_STAGES.replace("sft", "base") + _EVALUATE, ["'base' is the name of the model as it came"]),
])
def test_what_is_left_must_make_a_run(more: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        _recipe(Path("/somewhere"), more)
    assert all(word in str(error.value) for word in words)


def test_a_model_from_a_config_needs_a_stage() -> None:
    text = "name: none\ndata: points\nmodels: {policy: {name: points, network: mlp}}\nevaluate: {metrics: [coverage]}\n"
    with pytest.raises(UserError, match="has no weights yet"):
        parse(text, "recipe.yaml")
    assert parse(text + "stages: {name: untrained, steps: 0}\n", "recipe.yaml").all_stages[0].name == "untrained"
