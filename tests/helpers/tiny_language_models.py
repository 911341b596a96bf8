"""Language models of a few thousand weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from upturn import seeds
from upturn.models.causal_lm import CausalLm
from upturn.types import Prompt, Samples, objects, real_samples

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "max_position_embeddings": 64,
}


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


NEOX = {
    "model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 64,
}


def worked(count: int = 40) -> Samples:
    """a+b+c= with one worked step: prompts of uneven length."""
    rng = seeds.generator(3)
    prompts, contents = [], []
    for _ in range(count):
        a, b, c = (int(x) for x in rng.integers(1, [9, 120, 30]))
        prompts.append(Prompt(f"{a}+{b}+{c}=", fields={"answer": str(a + b + c)}))
        contents.append(f"{a + b}+{c}={a + b + c}")
    return real_samples("text", contents, prompts, "worked")


def pairs() -> Samples:
    """Twelve prompts i+i=, the right answer preferred to nines."""
    asked = [Prompt(f"{i}+{i}=") for i in range(1, 13)]
    both = objects([text for i in range(1, 13) for text in (str(2 * i), "9" * (i % 5 + 1))])
    rank = {"rank": np.tile([1, 2], len(asked))}
    samples = real_samples("text", both, [p for p in asked for _ in (0, 1)], "pairs", rank)
    return replace(samples, group=np.repeat(np.arange(12), 2), candidate=np.tile([0, 1], 12))


def built(config: dict[str, Any] = LLAMA, examples: Samples | None = None, **fields: Any) -> CausalLm:
    model = CausalLm(config=config, **fields)
    model.build(examples if examples is not None else worked(), 1)
    return model


def trained(steps: int = 60) -> CausalLm:
    """A model that has learned something, so that its samples end."""
    model = built()
    batch = model.encode(worked()).take(torch.arange(40))
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=1e-2)
    for _ in range(steps):
        out = model.forward(batch, None)
        loss = -(out.log_probs * out.mask).sum() / out.mask.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model
