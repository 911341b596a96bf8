"""SFT and DPO losses of SmolLM2 from one JSONL file beside TRL's trainers on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from common import RUNS, say
from test_chat_recipes import rows

from helpers.smollm2 import smollm2
from upturn.config import components
from upturn.data.sources.preferences import Preferences
from upturn.loop.stages.train import encode_examples
from upturn.models.causal_lm import CausalLm
from upturn.types import Mixture, concatenate

COUNT, LENGTH = 8, 160
TOLERANCE = 1e-4


def pair_file() -> Path:
    """Short pairs."""
    path = RUNS / "short-pairs.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    short = [row for row in rows() if len(json.dumps(row)) < 700][:COUNT]
    path.write_text("".join(json.dumps({k: row[k] for k in ("prompt", "chosen", "rejected")}) + "\n" for row in short))
    return path


def trl_log_probs(path: Path) -> torch.Tensor:
    """(2 N,) summed log-probs by TRL's DPO trainer: all chosen, then all rejected."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(
        output_dir=str(RUNS / "trl"), per_device_train_batch_size=COUNT, report_to="none", use_cpu=True, bf16=False,
        gradient_checkpointing=False, max_length=1024,
    )
    model, frozen = (AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32) for _ in range(2))
    data = load_dataset("json", data_files=str(path), split="train", cache_dir=str(RUNS / "cache"))
    trainer = DPOTrainer(
        model, ref_model=frozen, args=args, train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(smollm2()),
    )
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        return torch.cat([part.flatten() for part in trainer.compute_ref_log_probs(trainer.ref_model, inputs)])


def test_log_probs_of_pairs() -> None:
    """Summed log-probs of every answer: from them follow the losses of all objectives on pairs."""
    path = pair_file()
    splits = Preferences(path=str(path), held_out=0.3).load()
    samples = concatenate([splits.train, splits.held_out])
    model = CausalLm(folder=str(smollm2()), max_length=1024)
    model.build(samples, 0)
    model.module.eval()
    objective = components.make("objective", {"name": "dpo"}, "bench")
    batch = encode_examples(model, Mixture(samples, torch.ones(len(samples)).double().numpy()), objective)[0]
    with torch.no_grad():
        own = model.forward(batch.take(torch.arange(len(batch))), None).totals()
    theirs = trl_log_probs(path)
    gap = (own.double().sort().values - theirs.double().sort().values).abs()
    tokens = float(batch.columns["mask"].values.sum())
    say("answers, learned tokens", f"{len(own)}, {tokens:g}")
    say("largest difference of a summed log-prob to TRL's, nats", f"{float(gap.max()):.2e}")
    say("the same divided by the mean number of tokens", f"{float(gap.max()) / (tokens / len(own)):.2e}")
    assert float(gap.max()) / (tokens / len(own)) < TOLERANCE
