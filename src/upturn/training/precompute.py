"""What an objective's ``prepare`` asks of the model before a step: columns "before_…" (N, T) of a global batch.

Where a set is drawn for one step that sees it whole, the pass that says what was before is the pass that is trained:
its log-probs travel on as columns "live_…" that still carry their gradient, and no second pass is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from upturn.protocols import Objective
from upturn.training.feeds import REFERENCE, Feed, OnlineFeed
from upturn.types import Batch, Outputs

OWN = frozenset({"log_probs", "values"})  # what the policy itself is asked
_LIVE = "live_"
Ask = Callable[[Batch, int], Outputs]  # examples that stand at a place of the global batch -> a pass without gradient


def asked(objective: Objective) -> frozenset[str]:
    """Of "log_probs", "ref_log_probs" and "values"."""
    wanted: frozenset[str] = getattr(objective, "before", frozenset())
    return wanted


def columns(
    wanted: frozenset[str], batch: Batch, size: int, *, ask: Ask, ask_reference: Ask
) -> dict[str, torch.Tensor]:
    """Columns "before_…" and "before_mask", ``size`` examples at a time, without gradient."""
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(batch), size):
        part = batch.take(torch.arange(start, min(start + size, len(batch))))
        said = _said(ask(part, start)) if wanted & OWN else {}
        if "ref_log_probs" in wanted:
            known = part.columns.get(REFERENCE)
            out = ask_reference(part, start) if known is None else None
            said["ref_log_probs"] = known if out is None else out.log_probs
            if out is not None:
                said.setdefault("mask", out.mask / out.draws)
        for name in (*sorted(wanted), "mask"):
            if said.get(name) is not None:
                found.setdefault(name, []).append(said[name].cpu())
    return {f"before_{name}": torch.cat(parts) for name, parts in found.items()}


def live_columns(live: Outputs, wanted: frozenset[str]) -> dict[str, torch.Tensor]:
    """Of a pass over the whole batch with gradient: what it says as "before_…", and itself as "live_…"."""
    said = {name: value for name, value in _said(live).items() if name in wanted | {"mask"} and value is not None}
    carried = {"log_probs": live.log_probs, "mask": live.mask, "values": live.values}
    return {f"before_{name}": value.cpu() for name, value in said.items()} | {
        f"{_LIVE}{name}": value for name, value in carried.items() if value is not None
    }


def _said(out: Outputs) -> dict[str, Any]:
    # several draws estimate one log-prob: their mask says what each counts
    return {"log_probs": out.log_probs.detach(), "values": None if out.values is None else out.values.detach(),
            "mask": out.mask / out.draws}


def taken_along(micro: Batch, whole: Outputs | None) -> Outputs | None:
    """The pass that was made beforehand, its rows in the order of ``micro``; None where there was none."""
    if whole is None or f"{_LIVE}log_probs" not in micro.columns:
        return None
    values = micro[f"{_LIVE}values"] if whole.values is not None else None
    return replace(whole, log_probs=micro[f"{_LIVE}log_probs"], mask=micro[f"{_LIVE}mask"], values=values)


def one_pass(feed: Feed, size: int | None, module: torch.nn.Module) -> bool:
    """Whether each set is drawn for a single step that sees it at once, with nothing dropped by chance."""
    if not isinstance(feed, OnlineFeed) or feed.steps_per_epoch != 1 or (size is not None and size < feed.prompts):
        return False
    dropping = (getattr(part, name, 0) for part in module.modules() for name in ("p", "attention_dropout"))
    return not any(isinstance(share, float) and share > 0 for share in dropping)
