"""Losses end to end from rows of messages against TRL's trainers: the same file, the same model, the same number.

TRL reads the file with `datasets`, applies the chat template and pads in its own way; here the source, the chat template
and the objectives of this project do.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from upturn.adapters.lora import Lora
from upturn.config import components
from upturn.data.sources.jsonl import Jsonl
from upturn.data.tokenizers import train
from upturn.models.causal_lm import CausalLm
from upturn.types import Samples, concatenate

pytestmark = pytest.mark.slow
TEMPLATE = Path(__file__).parents[1] / "data" / "templates" / "tools.jinja"
CHATS = [
    [("user", "one two"), ("assistant", "three"), ("user", "four five six"), ("assistant", "seven eight")],
    [("system", "be brief"), ("user", "two"), ("assistant", "three four five six")],
    [("user", "what is <|im_end|> six"), ("assistant", "eight")],
    [("user", "seven"), ("assistant", "one one two")],
]
PAIRS = [("one two", "three", "four five"), ("six", "seven eight", "one"), ("two two", "five", "eight eight one")]


@cache
def folder(tmp: Path) -> Path:
    """A small random model with a chat template, as transformers saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = train({"kind": "bpe", "size": 300}, ["one two three four five six seven eight what is be brief"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE.read_text()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # far from uniform, so that a wrong mask shows
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=0.5)
    model.save_pretrained(tmp)
    tokenizer.save_pretrained(tmp)
    return tmp


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("chat") / "model")


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def everything(source: Any) -> Samples:
    splits = source.load()
    return concatenate([splits.train, splits.held_out])


def with_lora(model: Any) -> Any:
    """LoRA whose B is not zero, so that policy and reference differ."""
    adapter = Lora(rank=4, alpha=8.0)
    adapter.attach(model, 1, 0)
    torch.manual_seed(1)
    for name, parameter in model.module.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapter


def trl_args(kind: type, out: Path, **settings: Any) -> Any:
    return kind(
        output_dir=str(out), per_device_train_batch_size=8, report_to=[], use_cpu=True, max_length=256, bf16=False,
        fp16=False, gradient_checkpointing=False, **settings,
    )


def trl_loss(trainer: Any) -> float:
    """The loss of the trainer's first batch, with the model in evaluation mode (no dropout)."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))


def own_loss(objective: Any, model: Any, batch: Any, reference: torch.Tensor | None = None) -> float:
    from dataclasses import replace

    model.module.eval()
    batch = objective.prepare(batch)
    with torch.no_grad():
        out = model.forward(batch, None)
        if reference is not None:
            out = replace(out, ref_log_probs=reference)
        loss = objective(out, batch)
    return float(loss.sum / loss.weight)


def whole(batch: Any) -> Any:
    return batch.take(torch.arange(len(batch)))


@pytest.mark.parametrize(("train_on", "layout"), [("all", "messages"), ("completion", "prompt-completion")])
def test_sft(saved: Path, tmp_path: Path, train_on: str, layout: str) -> None:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    chats = [[message(role, text) for role, text in chat] for chat in CHATS if "<|" not in chat[0][1]]
    if layout == "messages":
        rows = [{"messages": chat} for chat in chats]
    else:
        rows = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]
    path = lines(tmp_path / "rows.jsonl", rows)
    trainer = SFTTrainer(
        model=str(saved), args=trl_args(SFTConfig, tmp_path / "out", packing=False, model_init_kwargs={"dtype": "float32"}),
        train_dataset=load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")),
    )
    model = CausalLm(folder=str(saved), train_on=train_on)
    samples = everything(Jsonl(path=str(path), held_out=0.4))
    model.build(samples, 0)
    batch = model.encode(samples)
    batch = type(batch)(batch.columns, 1, {"weights": torch.ones(len(samples))})
    own = own_loss(components.make("objective", {"name": "likelihood"}, "test"), model, whole(batch))
    assert own == pytest.approx(trl_loss(trainer), abs=1e-4)
