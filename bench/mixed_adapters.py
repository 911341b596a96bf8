"""Three adapters in one batch of twelve prompts, beside separate runs, on SmolLM2-135M-Instruct: tokens and CPU time.

    python bench/mixed_adapters.py FOLDER [--tokens 32] [--rounds 5]

FOLDER is a Llama-shaped model that transformers opens. Greedy answers; CPU seconds, all ways in turn, medians of the
paired ratios. ``one`` is the same batch with one adapter on all prompts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from upturn import seeds
from upturn.adapter_layers import injection
from upturn.adapters.lora import Lora
from upturn.models.causal_lm import CausalLm, TextSampling
from upturn.types import Prompt, real_samples

QUESTIONS = [
    "Name a colour.", "What is two plus two?", "Write a short poem about the sea.", "Who wrote Hamlet?",
    "Give me a word that rhymes with light.", "What is the capital of France?", "Describe a cat.",
    "Why is the sky blue?", "How do I boil an egg?", "Translate 'good morning' into French.", "Name three fruits.",
    "What does a plumber do?",
]
NAMES = ("one", "two", "three")


def loaded(folder: str) -> CausalLm:
    model = CausalLm(folder=folder, max_length=256)
    model.build(real_samples("text", np.array([" yes"], dtype=object), [Prompt("Is it?")], "seed"), 1)
    for number, name in enumerate(NAMES):  # as if trained: updates that change most answers
        Lora(rank=8, adapter_name=name).attach(model, 1, number)
        seeds.seed_torch(number)
        with torch.no_grad():
            for key, parameter in injection.tensors(model.module, name).items():
                if "lora_B" in key:
                    parameter.copy_(0.05 * torch.randn_like(parameter))
    model.module.eval()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    model = loaded(args.folder)
    prompts = [Prompt(text) for text in QUESTIONS]
    keys = seeds.fold(1, range(len(prompts)))[:, None]

    def draw(rows: slice, *choices: str) -> list[str]:
        settings = TextSampling(temperature=0.0, max_tokens=args.tokens, adapters=choices)
        return [str(text) for text in model.sample(prompts[rows], keys[rows], settings).content]

    every = slice(None)
    mixed_choices = NAMES * 4
    ways = {
        "mixed": lambda: draw(every, *mixed_choices),
        "one": lambda: draw(every, "one"),
        "separate": lambda: [draw(slice(i, None, 3), name) for i, name in enumerate(NAMES)],
        "four": lambda: draw(slice(0, None, 3), "one"),
    }
    mixed, alone = ways["mixed"](), ways["separate"]()
    same = [mixed[i] == alone[i % 3][i // 3] for i in range(len(prompts))]
    base = draw(every, "base")
    ways["one"]()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)

    def ratio(to: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds["mixed"], seconds[to], strict=True))

    print(f"answers as in the separate runs: {sum(same)} of {len(same)}")
    print(f"answers that an adapter changes: {sum(a != b for a, b in zip(mixed, base, strict=True))} of {len(base)}")
    print(f"CPU seconds, median: {({name: round(statistics.median(values), 2) for name, values in seconds.items()})}")
    print(f"mixed / one adapter on the same 12 prompts: {ratio('one'):.2f}")
    print(f"mixed / three separate runs of 4 prompts: {ratio('separate'):.2f}")
    print(f"mixed / one run of 4 prompts: {ratio('four'):.2f}")


if __name__ == "__main__":
    main()
