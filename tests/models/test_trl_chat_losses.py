"""Losses end to end from rows of messages against TRL's trainers: the same file, the same model, the same number.

TRL reads the file with `datasets`, applies the chat template and pads in its own way; here the source, the chat
template and the objectives of this project do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from upturn.adapters.lora import Lora
from upturn.config import components
from upturn.data.sources.jsonl import Jsonl
from upturn.data.sources.preferences import Preferences
from upturn.data.tokenizers import train
from upturn.errors import UserError
from upturn.loop.stages.train import encode_examples
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_text import RewardText
from upturn.types import Batch, Mixture, Samples, concatenate

pytestmark = pytest.mark.slow
TEMPLATE = Path(__file__).parents[1] / "data" / "templates" / "tools.jinja"
TOLERANCE = 1e-4  # nats a token or pair, in float32
CHATS = [
    [("user", "one two"), ("assistant", "three"), ("user", "four five six"), ("assistant", "seven eight")],
    [("system", "be brief"), ("user", "two"), ("assistant", "three four five six")],
    [("user", "what is six"), ("assistant", "eight")],
    [("user", "seven"), ("assistant", "one one two")],
]
PAIRS = [("one two", "three", "four five"), ("six", "seven eight", "one"), ("two two", "five", "eight eight one"),
         ("is", "be", "two"), ("four", "six six", "five three"), ("brief", "one", "what is")]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write_model(folder: Path, seed: int) -> Path:
    """A small random model with a chat template, far from uniform, as transformers saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = train({"kind": "bpe", "size": 300}, ["one two three four five six seven eight what is be brief"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE.read_text()
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.dim() > 1 else 1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that differs from the base in every weight."""
    return write_model(tmp_path_factory.mktemp("other") / "model", 1)


@pytest.fixture(params=["full", "lora"])
def policy(request: pytest.FixtureRequest, base: Path, other: Path, tmp_path: Path) -> Iterator[tuple[CausalLm, Any]]:
    """A trained policy, ours and as TRL opens it: every weight of its own, or LoRA on the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if request.param == "full":
        model = CausalLm(folder=str(other))
        model.build(everything(Jsonl, chat_file(tmp_path)), 0)
        yield model, AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
        return
    model = CausalLm(folder=str(base))
    model.build(everything(Jsonl, chat_file(tmp_path)), 0)
    Lora(rank=4, alpha=8.0).attach(model, 1, 0)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save(tmp_path / "lora")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    yield model, PeftModel.from_pretrained(plain, tmp_path / "lora" / "adapters" / "lora", is_trainable=True)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat_file(folder: Path) -> Path:
    return lines(folder / "chats.jsonl", [{"messages": [message(*turn) for turn in chat]} for chat in CHATS])


def pair_file(folder: Path) -> Path:
    return lines(folder / "pairs.jsonl", [
        {"prompt": [message("user", prompt)], "chosen": [message("assistant", good)],
         "rejected": [message("assistant", bad)]} for prompt, good, bad in PAIRS
    ])


def everything(kind: type, path: Path) -> Samples:
    """Both parts of a source, whatever share of so few rows leaves neither empty."""
    for share in (0.5, 0.3, 0.7, 0.1, 0.9, 0.2, 0.8, 0.4, 0.6):
        try:
            splits = kind(path=str(path), held_out=share).load()
        except UserError:
            continue
        return concatenate([splits.train, splits.held_out])
    raise AssertionError("no share divides the rows")


def own_loss(objective: dict[str, Any], model: Any, samples: Samples, reference: CausalLm | None = None) -> float:
    """The objective over all samples in one batch, as a stage encodes and prepares them."""
    made: Any = components.make("objective", objective, "test")
    examples = encode_examples(model, Mixture(samples, torch.ones(len(samples)).double().numpy()), made)[0]
    batch: Batch = examples.take(torch.arange(len(examples)))
    model.module.eval()
    with torch.no_grad():
        out = model.forward(batch, None)
        known = None if reference is None else reference.forward(batch, None).log_probs
        before = {"before_log_probs": out.log_probs, "before_mask": out.mask}
        batch = batch.with_columns(**before, **({} if known is None else {"before_ref_log_probs": known}))
        batch = made.prepare(batch)
        out = model.forward(batch, None)
        if reference is not None:
            out = replace(out, ref_log_probs=reference.forward(batch, None).log_probs)
        loss = made(out, batch)
    return float(loss.sum / loss.weight)


def trl_loss(kind: Any, config: Any, model: Any, path: Path, tokenizer: Path, **settings: Any) -> float:
    """The loss of TRL's trainer on its first batch, which holds the whole file; without dropout."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    further = {name: settings.pop(name) for name in ("ref_model",) if name in settings}
    out = path.parent / "out"
    args = config(
        output_dir=str(out), per_device_train_batch_size=8, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, max_length=256, **settings,
    )
    data = load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))
    trainer = kind(model, args=args, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(tokenizer),
                   **further)
    if "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")  # a copy of the adapter: here the reference is the base without it
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, inputs))


def reference_of(base: Path, folder: Path) -> CausalLm:
    model = CausalLm(folder=str(base))
    model.build(everything(Jsonl, chat_file(folder)), 0)
    model.module.eval()
    return model


@pytest.mark.parametrize("layout", ["messages", "prompt and completion"])
def test_sft(policy: tuple[CausalLm, Any], base: Path, tmp_path: Path, layout: str) -> None:
    """TRL learns every token of `messages` unless its template has generation marks, and of prompts the completion."""
    from trl import SFTConfig, SFTTrainer

    own, theirs = policy
    path = chat_file(tmp_path)
    own._format = replace(own._format, train_on="all" if layout == "messages" else "completion")
    if layout != "messages":
        chats = [[message(*turn) for turn in chat] for chat in CHATS]
        path = lines(tmp_path / "rows.jsonl", [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats])
    expected = trl_loss(SFTTrainer, SFTConfig, theirs, path, base, packing=False)
    found = own_loss({"name": "likelihood"}, own, everything(Jsonl, path))
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_dpo(policy: tuple[CausalLm, Any], base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    own, theirs = policy
    path = pair_file(tmp_path)
    whole = not hasattr(theirs, "peft_config")
    frozen = {"ref_model": AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)} if whole else {}
    expected = trl_loss(DPOTrainer, DPOConfig, theirs, path, base, beta=0.3, **frozen)
    samples = everything(Preferences, path)
    found = own_loss({"name": "dpo", "beta": 0.3}, own, samples, reference_of(base, tmp_path))
    assert abs(found - 0.6931) > 0.01  # the policy is not its reference
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_kto(policy: tuple[CausalLm, Any], base: Path, tmp_path: Path) -> None:
    """Of two rows, so that both take the other one's completion for the reference point."""
    from transformers import AutoModelForCausalLM
    from trl import KTOConfig, KTOTrainer

    own, theirs = policy
    path = lines(tmp_path / "labels.jsonl", [
        {"prompt": [message("user", "one two")], "completion": [message("assistant", "three four")], "label": True},
        {"prompt": [message("user", "six")], "completion": [message("assistant", "five")], "label": False},
    ])
    whole = not hasattr(theirs, "peft_config")
    frozen = {"ref_model": AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)} if whole else {}
    expected = trl_loss(KTOTrainer, KTOConfig, theirs, path, base, beta=0.3, **frozen)
    samples = everything(Preferences, path)
    found = own_loss({"name": "kto", "beta": 0.3}, own, samples, reference_of(base, tmp_path))
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_reward_model(base: Path, tmp_path: Path) -> None:
    """A head of the same weights on the same base; read at the last token of the conversation."""
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    path = pair_file(tmp_path)
    samples = everything(Preferences, path)
    own = RewardText(folder=str(base))
    own.build(samples, 0)
    torch.manual_seed(3)
    with torch.no_grad():
        own.module.score.weight.normal_()
    own.save(tmp_path / "reward")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", dtype=torch.float32)
    expected = trl_loss(RewardTrainer, RewardConfig, theirs, path, tmp_path / "reward")
    found = own_loss({"name": "bradley_terry"}, own, samples)
    assert abs(found - 0.6931) > 0.01
    assert found == pytest.approx(expected, abs=TOLERANCE)
