"""Tests of exports in other libraries: groups train TRL's DPOTrainer, models open in transformers and diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.small_recipes import small
from helpers.text_recipes import TEXT
from upturn.data.groups import by_reward
from upturn.errors import UserError
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


# --- several adapters ------------------------------------------------------------------------------------------------


def opened_with(run: Run, folder: Path) -> torch.Tensor:
    """Logits of the run's base with one adapter's folder, by `peft` alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.model_folder("rounds/001"))
    with torch.no_grad():
        return PeftModel.from_pretrained(model, folder).eval()(input_ids=IDS).logits


IDS = torch.tensor([[3, 4, 5, 6, 7, 8]])


@pytest.fixture(scope="module")
def second(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of another run on the same base: here a LoRA of another rank, with normal weights."""
    from upturn import seeds
    from upturn.adapter_layers import adapter_files, injection
    from upturn.adapters.lora import Lora
    from upturn.models.causal_lm import CausalLm

    folder = tmp_path_factory.mktemp("second")
    model = CausalLm(config={"model_type": "llama"})
    model.load(run.model_folder("rounds/001"))
    Lora(rank=4, adapter_name="style").attach(model, 1, 1)
    seeds.seed_torch(4)
    with torch.no_grad():
        for parameter in injection.tensors(model.module, "style").values():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    adapter_files.save(model.module, folder, ["style"])
    return folder / "adapters" / "style"


def adapters_of(run: Run, folder: Path, form: Any, *stated: str, **fields: Any) -> Path:
    model_export.write_adapters(run, "rounds/001", folder, form, model_export.Chosen(stated, **fields))
    return folder / "adapters"


def test_adapters_of_two_runs_are_exported_together(run: Run, second: Path, tmp_path: Path) -> None:
    both = adapters_of(run, tmp_path / "both", "peft", "preferences", str(second))
    assert json.loads((both / "order.json").read_text()) == ["preferences", "style"]
    one = opened_with(run, run.model_folder("rounds/001") / "adapters" / "preferences")
    torch.testing.assert_close(opened_with(run, both / "preferences"), one)
    torch.testing.assert_close(opened_with(run, both / "style"), opened_with(run, second))
    as_lora = adapters_of(run, tmp_path / "lora", "lora", "preferences", str(second))
    torch.testing.assert_close(opened_with(run, as_lora / "preferences"), one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(opened_with(run, as_lora / "style"), opened_with(run, second), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("how", "fields"), [
    ("cat", {}), ("svd", {"rank": 6}), ("linear", {}), ("ties", {"density": 0.5}), ("ties_svd", {"density": 0.5}),
    ("dare_ties", {"density": 0.7}), ("dare_linear", {"density": 0.7}),
])  # fmt: skip
def test_adapters_are_combined_as_peft_combines_them(
    how: str, fields: dict[str, Any], run: Run, second: Path, tmp_path: Path
) -> None:
    """The whole model's logits, after `peft`'s own add_weighted_adapter on it; DARE draws, so it is opened only."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = adapters_of(
        run, tmp_path / "ours", "lora", "preferences=0.7", f"{second}=-0.4", combine=how, **fields
    ) / "combined"
    ours = opened_with(run, folder)
    base = AutoModelForCausalLM.from_pretrained(run.model_folder("rounds/001"))
    first = run.model_folder("rounds/001") / "adapters" / "preferences"
    theirs = PeftModel.from_pretrained(base, first, "first")
    theirs.load_adapter(second, "second")
    options = {"svd_rank": fields["rank"]} if "rank" in fields else fields
    theirs.base_model.add_weighted_adapter(["first", "second"], [0.7, -0.4], "both", combination_type=how, **options)
    theirs.set_adapter("both")
    with torch.no_grad():
        expected = theirs.eval()(input_ids=IDS).logits
    if how.startswith("dare"):
        assert ours.shape == expected.shape and not torch.allclose(ours, opened_with(run, second), atol=1e-3)
    else:
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    model_export.write(run, "rounds/001", tmp_path / "model", model_export.Chosen(
        ("preferences=0.7", f"{second}=-0.4"), how, fields.get("density"), fields.get("rank")
    ))
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(input_ids=IDS).logits
    torch.testing.assert_close(whole, ours, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_cut_to_the_nearest_of_a_rank(run: Run, second: Path, tmp_path: Path) -> None:
    """Each layer's update is the best of its rank: what a singular value decomposition leaves."""
    from safetensors.torch import load_file

    cut = adapters_of(run, tmp_path / "cut", "lora", str(second), rank=2) / "style"
    whole, less = (load_file(folder / "adapter_model.safetensors") for folder in (second, cut))
    for key in (key for key in whole if key.endswith("lora_A.weight")):
        up = key.replace("lora_A", "lora_B")
        update = 2.0 * whole[up] @ whole[key]  # alpha is twice the rank
        u, values, v = torch.linalg.svd(update, full_matrices=False)
        torch.testing.assert_close(less[up] @ less[key], (u[:, :2] * values[:2]) @ v[:2], atol=1e-4, rtol=1e-4)
    assert json.loads((cut / "adapter_config.json").read_text())["r"] == 2


def test_samples_by_the_adapter_of_each_prompt(run: Run, second: Path) -> None:
    from upturn.runs.new_samples import Drawer

    prompts = ["1+2=", "3+4="]
    style = Drawer(run, "rounds/001", adapters=[str(second)]).draw(prompts, 3, 1).content.tolist()
    base = Drawer(run, "rounds/001", adapters=["base"]).draw(prompts, 3, 1).content.tolist()
    mixed = Drawer(run, "rounds/001", adapters=["base", str(second)]).draw(prompts, 3, 1)
    assert mixed.content.tolist() == base[:3] + style[3:] and base != style
    assert mixed.fields["adapters"].tolist() == ["base"] * 3 + ["style"] * 3
    with pytest.raises(UserError, match="there is no adapter 'none'"):
        Drawer(run, "rounds/001", adapters=["none"])


def test_adapters_that_cannot_be_exported_so_are_refused(run: Run, second: Path, tmp_path: Path) -> None:
    for stated, fields, message in (
        (("preferences", str(second)), {"combine": "ties"}, "needs the share"),
        (("preferences", str(second)), {"combine": "mean"}, "cannot be combined by 'mean'"),
        (("nothing",), {}, "there is no adapter 'nothing'"), ((), {"rank": 0}, "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            adapters_of(run, tmp_path / "none", "lora", *stated, **fields)
    with pytest.raises(UserError, match="writes all adapters as they are"):
        adapters_of(run, tmp_path / "none", "kohya", "preferences")
