"""Adapters that choose ranks, on a planted low-rank change whose rank is known layer by layer: do they find it?

    python bench/planted_ranks.py ranks [--seeds 5]    AdaLoRA, SoRA, ALoRA: rank correlation with the planted ranks
    python bench/planted_ranks.py nested [--seeds 3]   DyLoRA cut to each rank, beside a LoRA trained at that rank

The teacher is a random Llama of two layers (14 matrices) plus B A in each, of rank 0, 1, 2, 4 or 8, all singular
values equal. The student is the Llama without the change; its adapter learns the teacher's distribution over the next
token on random tokens (Kullback-Leibler divergence, nats a token).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from upturn import seeds
from upturn.adapter_layers import injection, row_adapters
from upturn.adapters.adalora import Adalora
from upturn.adapters.alora import Alora
from upturn.adapters.dylora import Dylora
from upturn.adapters.lora import Lora
from upturn.adapters.sora import Sora
from upturn.models.causal_lm import CausalLm
from upturn.types import Prompt, real_samples

CONFIG = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "vocab_size": 32, "initializer_range": 0.2,
}
RANKS = (0, 0, 1, 2, 4, 8)  # of a layer, drawn; 2.5 on average
SIZE = 1.5  # of each planted singular value
ROWS, LENGTH = 24, 8  # tokens of a batch
DRAWS = 10_000  # of the bootstrap, and permutations


def built(seed: int) -> Any:
    model = CausalLm(config=dict(CONFIG))
    model.build(real_samples("text", np.array(["abcdefghij"], dtype=object), [Prompt()], "seed"), seed)
    model.module.requires_grad_(False).eval()
    return model


def planted(seed: int, draw: Callable[[np.random.Generator], int]) -> tuple[Any, dict[str, int]]:
    """The teacher, and the rank of its change by layer."""
    teacher, random = built(seed), seeds.generator(seeds.key("planted", seed))
    seeds.seed_torch(seed)
    found = {}
    for path, layer in teacher.module.named_modules():
        if isinstance(layer, torch.nn.Linear) and path != "lm_head":
            rank = draw(random)
            left = torch.linalg.qr(torch.randn(layer.out_features, max(rank, 1))).Q[:, :rank]
            right = torch.linalg.qr(torch.randn(layer.in_features, max(rank, 1))).Q[:, :rank]
            layer.weight += SIZE * left @ right.T
            found[path] = rank
    return teacher, found


def divergence(student: Any, teacher: Any, key: int, rows: int = ROWS) -> torch.Tensor:
    """Nats a token, on random tokens of this key."""
    tokens = torch.randint(CONFIG["vocab_size"], (ROWS, LENGTH), generator=torch.Generator().manual_seed(key))[:rows]
    with torch.no_grad():
        wanted = teacher.module(input_ids=tokens).logits.log_softmax(-1)
    own = student.module(input_ids=tokens).logits.log_softmax(-1)
    return (wanted.exp() * (wanted - own)).sum(-1).mean()


def trained(adapter: Any, teacher: Any, seed: int, steps: int, rate: float) -> Any:
    student = built(seed)
    adapter.attach(student, steps, seed)
    optimiser = torch.optim.AdamW(list(adapter.parameters(student)), lr=rate, weight_decay=0.0)
    for step in range(steps):
        now = rate * min(1.0, 2 * (1 - step / steps))  # constant, then down to zero in the second half
        optimiser.param_groups[0]["lr"] = now

        def mean(rows: int, step: int = step) -> float:
            with torch.no_grad():
                return float(divergence(student, teacher, step, rows))

        adapter.before_step(student, step, mean)
        loss, extra = divergence(student, teacher, step), adapter.regulariser(student)
        (loss if extra is None else loss + extra).backward()
        optimiser.step()
        adapter.after_step(student, step + 1, now)
        optimiser.zero_grad()
    adapter.finish(student)
    return student


def held_out(student: Any, teacher: Any) -> float:
    with torch.no_grad():
        return float(np.mean([float(divergence(student, teacher, 10**6 + i)) for i in range(8)]))


def ranks_of(student: Any, name: str) -> dict[str, int]:
    """By layer, the ranks that act."""
    pattern = injection.inner(student.module).peft_config[name].rank_pattern
    return {key.removesuffix(".lora_E"): sum(kept) for key, kept in pattern.items()}


def ways() -> dict[str, Any]:
    return {
        "adalora": Adalora(rank=2, initial_rank=8, orthogonality=0.1),
        "sora": Sora(rank=8), "alora": Alora(rank=2, most=8, rows=8, moves=6, share=0.1),
    }


def compare_ranks(count: int, steps: int, rate: float) -> None:
    pairs: dict[str, list[tuple[list[int], list[int]]]] = {name: [] for name in ways()}
    left: dict[str, list[float]] = {name: [] for name in ways()}
    for seed in range(count):
        teacher, planted_ranks = planted(seed, lambda random: int(random.choice(RANKS)))
        for name, adapter in ways().items():
            student = trained(adapter, teacher, seed, steps, rate)
            found = ranks_of(student, name)
            pairs[name].append(([found[path] for path in planted_ranks], list(planted_ranks.values())))
            print(f"seed {seed} {name}: {pairs[name][-1]}", flush=True)
            left[name].append(held_out(student, teacher) / held_out(built(seed), teacher))
    print(f"{count} seeds, {len(planted_ranks)} layers, {steps} steps")
    for name, found_pairs in pairs.items():
        mean, low, high, chance = correlation(found_pairs)
        total = np.mean([sum(found) for found, _ in found_pairs])
        print(
            f"{name:8} Spearman {mean:.2f} [{low:.2f}, {high:.2f}], permutation p {chance:.4f}, mean ranks in all "
            f"{total:.0f} (planted {np.mean([sum(true) for _, true in found_pairs]):.0f}), "
            f"divergence left {np.mean(left[name]):.3f}"
        )


def correlation(pairs: list[tuple[list[int], list[int]]]) -> tuple[float, float, float, float]:
    """Mean rank correlation over seeds, its 95% bootstrap interval (layers within seeds), and the share of
    permutations of the planted ranks within seeds that reach it."""
    random = seeds.generator(seeds.key("correlation", 0))
    boot, chance, every = np.zeros(DRAWS), np.zeros(DRAWS), 0.0
    for found, true in pairs:
        x, y = np.array(found), np.array(true)
        rows = np.arange(len(x))[None]
        drawn = random.integers(len(x), size=(DRAWS, len(x)))
        mixed = random.permuted(np.repeat(rows, DRAWS, axis=0), axis=1)
        every += float(spearman(x[rows], y[rows])[0]) / len(pairs)
        boot += spearman(x[drawn], y[drawn]) / len(pairs)
        chance += spearman(x[np.repeat(rows, DRAWS, axis=0)], y[mixed]) / len(pairs)
    low, high = np.quantile(boot, [0.025, 0.975])
    return every, float(low), float(high), float((1 + (chance >= every).sum()) / (1 + DRAWS))


def spearman(x: Any, y: Any) -> Any:
    """By row; 0 where a row is constant."""
    x, y = (rankdata(values, axis=1) for values in (x, y))
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), norm, out=np.zeros(len(x)), where=norm > 0)


def compare_nested(count: int, steps: int, rate: float) -> None:
    gains: dict[int, list[tuple[float, float]]] = {rank: [] for rank in (1, 2, 4, 8)}
    for seed in range(count):
        teacher, _ = planted(seed, lambda random: 4)
        before = held_out(built(seed), teacher)
        nested = trained(Dylora(rank=8), teacher, seed, steps, rate)
        for rank, values in gains.items():
            for _, layer in injection.layers(nested.module):
                layer.lora_E["dylora"].data[:, 0] = (torch.arange(8) < rank).float()
            alone = trained(Lora(rank=rank), teacher, seed, steps, rate)
            assert row_adapters.fits(nested.module, ["dylora"])
            values.append((before - held_out(nested, teacher), before - held_out(alone, teacher)))
    for rank, values in gains.items():
        shares = [ours / theirs for ours, theirs in values]
        print(f"rank {rank}: DyLoRA has {np.mean(shares):.3f} of the gain of a LoRA trained at it "
              f"(seeds: {', '.join(f'{share:.3f}' for share in shares)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["ranks", "nested"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rate", type=float, default=5e-3)
    args = parser.parse_args()
    {"ranks": compare_ranks, "nested": compare_nested}[args.what](args.seeds, args.steps, args.rate)


if __name__ == "__main__":
    main()
