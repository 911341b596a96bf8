"""Tests of exports in other libraries: groups train TRL's DPOTrainer, models open in transformers and diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.small_recipes import small
from helpers.text_recipes import TEXT
from upturn.data.groups import by_reward
from upturn.export import model_export
from upturn.export.run_export import export
from upturn.loop import loop
from upturn.store import parquet_tables
from upturn.store.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A round of DPO with LoRA on texts."""
    adapter = "rounds.train.adapter={name: lora, rank: 4, adapter_name: preferences}"
    return loop.run(small(TEXT, adapter, "rounds.train.learning_rate=0.01"), tmp_path_factory.mktemp("run"))


def test_groups_of_a_run_train_trl_unchanged(run: Run, tmp_path: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    export(run, "preferences", tmp_path / "out")
    files = sorted(str(path) for path in (tmp_path / "out").rglob("*") if path.suffix in (".jsonl", ".parquet"))
    pairs = load_dataset("json" if files[0].endswith("jsonl") else "parquet", data_files=files, split="train")
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    rewards = parquet_tables.read_scores(run.unit("rounds/001") / "scores.parquet", samples.ids)["length"].values
    telling = by_reward(samples, rewards, 2).ranks.max(axis=1) > 1
    assert {"prompt", "chosen", "rejected"} <= set(pairs.column_names) and len(pairs) >= int(telling.sum()) > 0
    folder = run.unit("rounds/000/pretrain") / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    trainer = DPOTrainer(
        model, train_dataset=pairs, processing_class=AutoTokenizer.from_pretrained(folder),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), max_steps=2, per_device_train_batch_size=4, use_cpu=True,
                       bf16=False, report_to="none", save_strategy="no", learning_rate=1e-3, disable_tqdm=True),
    )
    trainer.train()
    assert all(np.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)
    assert not torch.equal(torch.cat([p.detach().reshape(-1).cpu() for p in trainer.model.parameters()]), before)


def test_a_trained_adapter_opens_in_plain_peft_and_merged_in_plain_transformers(run: Run, tmp_path: Path) -> None:
    """Log-probs of the run's own samples, three ways."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from upturn.loop.assemble import assemble
    from upturn.loop.assembly import load_model

    unit = run.unit("rounds/001")
    samples = parquet_tables.read_samples(unit / "samples.parquet").take(range(12))
    parts = assemble(small(TEXT, "rounds.train.adapter={name: lora, rank: 4, adapter_name: preferences}"))
    ours = load_model(parts, "policy", unit / "model", "x")
    batch = ours.encode(samples)
    batch = batch.take(torch.arange(len(batch)))
    with torch.no_grad():
        expected = ours.forward(batch, None)
        base = AutoModelForCausalLM.from_pretrained(unit / "model")
        plain = base(batch["tokens"][:, :-1]).logits.log_softmax(-1)
        adapted = PeftModel.from_pretrained(base, str(unit / "model" / "adapters" / "preferences")).eval()
        model_export.write(run, "rounds/001", tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        for model in (adapted, merged):
            found = model(batch["tokens"][:, :-1]).logits.log_softmax(-1)
            found = found.gather(2, batch["tokens"][:, 1:, None])[..., 0]
            torch.testing.assert_close(found * expected.mask, expected.log_probs * expected.mask, atol=1e-5, rtol=1e-5)
    said = plain.gather(2, batch["tokens"][:, 1:, None])[..., 0]
    assert ((said - expected.log_probs) * expected.mask).abs().max() > 1e-4  # the adapter does something


def test_pain_7_rows_of_a_batch_are_independent(run: Run) -> None:
    """The gradient of a bucketed, padded batch is the sum of the gradients of its rows alone."""
    from upturn.loop.assemble import assemble
    from upturn.loop.assembly import load_model

    model = load_model(assemble(small(TEXT)), "policy", run.unit("rounds/000/pretrain") / "model", "x")
    model.module.double().train()
    samples = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet").take(range(6))
    batch = model.encode(samples)

    def gradient(rows: list[list[int]]) -> torch.Tensor:
        model.module.zero_grad()
        for some in rows:
            model.forward(batch.take(torch.tensor(some)), None).totals().sum().backward()
        return torch.cat([p.grad.reshape(-1) for p in model.module.parameters() if p.grad is not None])

    assert len(set(batch.lengths.tolist())) > 1
    torch.testing.assert_close(gradient([[0, 1, 2, 3, 4, 5]]), gradient([[i] for i in range(6)]), atol=1e-9, rtol=1e-7)


def test_the_llama_rounds_run_on_any_folder_of_a_causal_model(run: Run, tmp_path: Path) -> None:
    """The shipped recipe on a tiny model from a folder: all its parts, few of each."""
    from upturn.config import recipe
    from upturn.report import write
    from upturn.report.facts import Facts
    from upturn.report.sections.time_and_cost import times
    from upturn.runs import status

    (tmp_path / "texts").mkdir()
    lines = [f"{a} + {b} = {a + b}." if a % 2 else f"{a} - {b} = {a - b}" for a in range(40) for b in range(20)]
    (tmp_path / "texts" / "sums.txt").write_text("\n\n".join(lines))
    small_ones = [
        f"models.policy={{name: causal_lm, folder: {run.unit('rounds/000/pretrain') / 'model'}, max_length: 48}}",
        f"data={{name: corpus, paths: [{tmp_path / 'texts'}], length: 24, section: 240}}", "threads=1",
        "stages.0.steps=4", "rounds.count=1", "rounds.sample.prompts=16", "rounds.sample.settings={max_tokens: 20}",
        "models.reward.refit.prompts=16", "models.reward.refit.epochs=1", "models.reward.max_length=48",
        "models.reward.refit.score={name: length}", "evaluate.0.prompts=8", "evaluate.0.settings={max_tokens: 20}",
        "grid={prompts: 1, per_prompt: 1}",
    ]
    asked = recipe.load(Path(__file__).parents[2] / "recipes" / "llama-rounds.yaml", small_ones)
    done = loop.run(asked, tmp_path / "runs")
    steps = [(record.unit, record.step) for record in done.records("rounds/001")]
    assert [step for _, step in steps] == ["sample", "score", "curate", "mix", "train", "evaluate", "gate"]
    fitted = done.done("rounds/001/reward", "fit")
    assert fitted is not None and "accuracy" in fitted.info["assessment"]
    assert done.done("rounds/001/rejection-sampling", "train") is not None
    assert "rejection-sampling" in write(done).read_text()
    every = done.records()
    spent = status.read(done)
    assert set(spent.setup_seconds) == {"load"}  # a refit belongs to its round
    first = {step: sum(r.seconds for r in every if r.unit.startswith("rounds/001") and r.step == step)
             for step in ("train", "judge", "fit", "mix")}
    assert first == {step: pytest.approx(spent.rounds[1].seconds[step]) for step in first}
    assert sum(r.step == "train" and r.unit.startswith("rounds/001") for r in every) == 2
    counted = sum(spent.setup_seconds.values()) + sum(sum(r.seconds.values()) for r in spent.rounds)
    assert counted == pytest.approx(sum(r.seconds for r in every if r.step != "base"))
    assert {"fitting helper models", "collecting comparisons"} <= {name for _, name in times(Facts(done)).legend}
