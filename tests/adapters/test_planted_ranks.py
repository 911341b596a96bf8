"""Adapters that choose ranks, on a planted change whose rank is known layer by layer: they find it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from upturn import seeds
from upturn.adapter_layers import injection
from upturn.adapters.adalora import Adalora
from upturn.adapters.alora import Alora
from upturn.adapters.dylora import Dylora
from upturn.adapters.lora import Lora
from upturn.adapters.sora import Sora

pytestmark = pytest.mark.slow

WIDTH = 16
PLANTED = (4, 0, 2, 1, 0, 3, 0, 1)  # the rank of each layer's change; 11 in all, 1.4 on average


class Parallel(nn.Module):
    """Linear maps of one input, side by side: each layer's error is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in PLANTED)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([layer(x) for layer in self.layers], dim=1)


def change(seed: int) -> torch.Tensor:
    """(layers, out, in): orthogonal directions of singular values 2, 1.6, 1.2 and 0.8."""
    seeds.seed_torch(seed)
    updates = []
    for rank in PLANTED:
        left, right = (torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q[:, :rank] for _ in range(2))
        updates.append((left * torch.tensor([2.0, 1.6, 1.2, 0.8])[:rank]) @ right.T)
    return torch.stack(updates)


def trained(adapter: Any, seed: int, steps: int = 300, rate: float = 0.02) -> tuple[Any, torch.Tensor]:
    """The model, and the change that it had to learn from noisy examples."""
    seeds.seed_torch(1)
    model: Any = SimpleNamespace(module=Parallel())
    base = torch.stack([layer.weight.detach() for layer in model.module.layers])
    target = change(seed)
    adapter.attach(model, steps, seed)
    optimiser = torch.optim.AdamW(list(adapter.parameters(model)), lr=rate, weight_decay=0.0)
    for step in range(steps):
        seeds.seed_torch(seeds.key("batch", seed, step) % 2**31)
        x = torch.randn(64, WIDTH)
        y = torch.einsum("loi,ni->nlo", base + target, x) + 0.3 * torch.randn(64, len(PLANTED), WIDTH)

        def loss(rows: int, x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            return ((model.module(x[:rows]) - y[:rows]) ** 2).mean()

        adapter.before_step(model, step, lambda rows, of=loss: float(of(rows).detach()))
        now = rate * min(1.0, 2 * (1 - step / steps))
        optimiser.param_groups[0]["lr"] = now
        loss(64).backward()
        optimiser.step()
        adapter.after_step(model, step + 1, now)
        optimiser.zero_grad()
    adapter.finish(model)
    return model, target


def left_over(model: Any, target: torch.Tensor) -> float:
    """The squared error of the learned change; that of none is the target's square."""
    seeds.seed_torch(1)
    base = torch.stack([layer.weight.detach() for layer in Parallel().layers])
    with torch.no_grad():
        learned = model.module(torch.eye(WIDTH)).permute(1, 2, 0) - base
    return float(((learned - target) ** 2).sum())


@pytest.mark.long
@pytest.mark.parametrize("adapter", [
    Adalora(rank=2, initial_rank=6, orthogonality=0.0), Sora(rank=6),
    Alora(rank=2, most=6, rows=32, moves=6, share=0.15),
], ids=["adalora", "sora", "alora"])  # fmt: skip
def test_the_planted_ranks_are_found(adapter: Any) -> None:
    """The rank correlation with the planted ones is above what one in a hundred permutations of the layers reaches."""
    model, target = trained(adapter, 3)
    pattern = model.module.peft_config[adapter.adapter_name].rank_pattern
    found = [sum(kept) for kept in pattern.values()]
    assert spearmanr(found, PLANTED).statistic > 0.85, found
    assert left_over(model, target) < 0.1 * float((target**2).sum())


@pytest.mark.long
def test_dylora_loses_little_at_every_rank() -> None:
    """Cut to a rank, it gains at least nine tenths of what a LoRA of the rank gains in as many steps."""
    model, target = trained(Dylora(rank=4), 3)
    whole = float((target**2).sum())
    for rank in (1, 2, 4):
        for _, layer in injection.layers(model.module):
            layer.lora_E["dylora"].data[:, 0] = (torch.arange(4) < rank).float()
        alone = whole - left_over(*trained(Lora(rank=rank), 3))
        assert alone > 0.4 * whole
        assert whole - left_over(model, target) > 0.9 * alone, rank
