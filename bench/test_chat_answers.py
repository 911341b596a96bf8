"""Greedy answers of a real chat model: they end by themselves, and are those of transformers' ``generate``.

SmolLM2-135M-Instruct, the 64 first of Self-Instruct's seed tasks of at most 600 characters, at most 128 tokens.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from common import ROOT, say

from helpers.smollm2 import smollm2
from upturn.models.causal_lm import CausalLm, TextSampling
from upturn.types import Prompt, real_samples
from upturn.types.conversations import Message

TASKS = ROOT.parent / "shared" / "data" / "self_instruct" / "seed_tasks.jsonl"
COUNT, TOKENS = 64, 128
LONGEST = 600  # characters of a task: padded prompts of other tasks cost as much as the longest


def test_greedy_answers_are_those_of_generate() -> None:
    if not TASKS.exists():
        pytest.skip("the seed tasks of Self-Instruct are not there")
    rows = map(json.loads, TASKS.read_text(encoding="utf-8").splitlines())
    texts = ["\n".join(filter(None, (row["instruction"], row["instances"][0]["input"]))) for row in rows]
    texts = [text for text in texts if len(text) <= LONGEST][:COUNT]
    prompts = [Prompt(text, messages=(Message("user", text),)) for text in texts]
    model = CausalLm(folder=str(smollm2()), max_length=1024)
    model.build(real_samples("text", ["x"], [Prompt("x")], "bench"), 0)
    keys = np.arange(COUNT, dtype=np.int64)[:, None]
    own = model.sample(prompts, keys, TextSampling(temperature=0.0, max_tokens=TOKENS))

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2(), padding_side="left")
    reference = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32)
    theirs: list[str] = []
    ended = 0
    for start in range(0, COUNT, 16):
        chats = [[{"role": "user", "content": text}] for text in texts[start : start + 16]]
        given = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        )
        out = reference.generate(**given, max_new_tokens=TOKENS, do_sample=False)[:, given["input_ids"].shape[1] :]
        ended += int((out == tokenizer.eos_token_id).any(dim=1).sum())
        theirs += tokenizer.batch_decode(out, skip_special_tokens=True)
    stopped = int((own.fields["finish"] == "stop").sum())
    equal = sum(a == b for a, b in zip(own.content, theirs, strict=True))
    say("answers that end by themselves, ours and generate's", f"{stopped} and {ended} of {COUNT}")
    say("equal texts", f"{equal} of {COUNT}")
    assert abs(stopped - ended) <= 2
    assert equal >= 0.95 * COUNT
