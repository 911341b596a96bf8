"""Tests that exports of language models open in transformers and peft alone, with what the user's model came with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.small_recipes import small
from helpers.text_recipes import TEXT
from helpers.tiny_language_models import LLAMA, built, worked
from upturn.adapter_layers import adapter_files
from upturn.data import tokenizers
from upturn.export import model_export
from upturn.export.run_export import export
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_text import RewardText
from upturn.store.run import Run

pytestmark = pytest.mark.slow

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
GENERATION = '{"eos_token_id": 2, "temperature": 0.25, "do_sample": false, "transformers_version": "4.1.0"}'


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many chat models come: the end token pads, there is a template, and a generation_config with its own mind."""
    folder = tmp_path_factory.mktemp("base") / "model"
    built({**LLAMA, "tie_word_embeddings": True}, tokenizer={"kind": "bpe", "size": 300}).save(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "pad_token": settings["eos_token"], "chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text(GENERATION)
    return folder


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An adapter from fine-tuning, and another from DPO on top of it."""
    config = TEXT[TEXT.index("    config:"):TEXT.index("    max_length")]
    given = TEXT.replace(config, f"    folder: {base}\n")
    adapted = "learning_rate: 0.02, adapter: {name: lora, rank: 2, adapter_name: NAME}, steps: 4"
    given = given.replace("{name: pretrain, steps: 30", "{name: sft, " + adapted.replace("NAME", "sft"))
    given = given.replace("train: {steps: 5", "train: {" + adapted.replace("NAME", "dpo"))
    return loop.run(small(given), tmp_path_factory.mktemp("runs"))


def log_probs(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model.eval()(batch["tokens"][:, :-1]).logits.float().log_softmax(-1)
    return found.gather(2, batch["tokens"][:, 1:, None])[..., 0] * batch["mask"][:, 1:]


def ours(folder: Path) -> tuple[Any, torch.Tensor]:
    model = CausalLm(folder="gone")
    model.load(folder)
    batch = model.encode(worked(6))
    batch = batch.take(torch.arange(len(batch)))
    with torch.no_grad():
        out = model.forward(batch, None)
    return batch, out.log_probs * out.mask


def test_the_merged_model_is_whole(run: Run, base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    unit = "rounds/001"
    model_export.write(run, unit, tmp_path / "model")
    batch, expected = ours(run.model_folder(unit))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(log_probs(plain, batch), expected, atol=1e-5, rtol=1e-5)
    tokenizer, given = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "model", base))
    assert tokenizer.pad_token == given.pad_token == given.eos_token
    assert tokenizer.chat_template == TEMPLATE and len(tokenizer) == len(given)
    assert plain.get_input_embeddings().weight.shape[0] == len(given)
    assert (tmp_path / "model" / "generation_config.json").read_text() == GENERATION
    assert GenerationConfig.from_pretrained(tmp_path / "model").temperature == 0.25
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or path.stat().st_nlink == 1  # nothing of the run


def test_every_adapter_opens_in_auto_peft(run: Run, base: Path, tmp_path: Path) -> None:
    """The last is the whole model, the first the model after the first stage."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    unit, to = run.incumbent(), tmp_path / "out"
    assert unit is not None
    write = partial(model_export.write_adapters, form="peft", to=to)
    done = export(run, "adapters", to, write)
    names = adapter_files.order(run.model_folder(unit))
    for name, last in zip(names, ("rounds/000", "rounds/001"), strict=False):
        folder = done.folder / "adapters" / "adapters" / name
        batch, expected = ours(run.model_folder(last))
        model = AutoPeftModelForCausalLM.from_pretrained(str(folder))
        torch.testing.assert_close(log_probs(model, batch), expected, atol=1e-5, rtol=1e-5)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.pad_token == tokenizer.eos_token and tokenizer.chat_template == TEMPLATE
    named = json.loads((done.folder / "adapters/adapters/sft/adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(base)


def test_both_adapters_of_a_round(run: Run, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    model_export.write_adapters(run, "rounds/001", tmp_path / "out" / "adapters", "peft")
    config = tmp_path / "out/adapters/adapters/dpo/adapter_config.json"
    assert json.loads(config.read_text())["base_model_name_or_path"] == str(tmp_path / "out" / "base-of-dpo")
    batch, expected = ours(run.model_folder("rounds/001"))
    model = AutoPeftModelForCausalLM.from_pretrained(str(config.parent))
    torch.testing.assert_close(log_probs(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_a_base_that_was_trained_is_exported_with_its_adapter(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    run = loop.run(small(TEXT, "rounds.train.adapter={name: lora, rank: 2}"), tmp_path)
    model_export.write_adapters(run, "rounds/001", tmp_path / "out" / "adapters", "peft")
    batch, expected = ours(run.model_folder("rounds/001"))
    model = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out" / "adapters" / "adapters" / "lora"))
    torch.testing.assert_close(log_probs(model, batch), expected, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "out" / "base-of-lora" / "adapters").exists()


def test_only_a_head_needs_a_pad_token_of_its_own(base: Path) -> None:
    policy, reward = CausalLm(folder=str(base)), RewardText(folder=str(base))
    for model in (policy, reward):
        model.build(worked(), 1)
    assert policy.codec.tokenizer.pad_token == policy.codec.tokenizer.eos_token
    assert reward.codec.tokenizer.pad_token == tokenizers.PAD and reward.codec.pad != reward.codec.eos
    assert reward.module.config.pad_token_id == reward.codec.pad
