"""What comes of a recipe beside time: the disk it fills, and where theory says it ends."""

from __future__ import annotations

import numpy as np
import torch

from upturn.assemble import where
from upturn.plan import expected
from upturn.plan.planner import Planner
from upturn.theory import Verdict, verdict
from upturn.types import Samples

_ROW_BYTES = 200  # of ids, prompt and key in a table, about


def disk_bytes(planner: Planner) -> float:
    """Weights of every stage, round and listed epoch, and the tables of samples; before compression."""
    recipe = planner.recipe
    rounds = recipe.rounds
    trainings = rounds.count * len(rounds.train) if rounds else 0
    epochs = sum(len(stage.checkpoint_epochs) for stage in recipe.stages)
    epochs += rounds.count * sum(len(turn.checkpoint_epochs) for turn in rounds.train) if rounds else 0
    helpers = sum(_weight_bytes(planner.tools.model(name).module) for name in recipe.models if name != "policy")
    made = sum(row.samples for row in planner.rows if row.step in ("load", "sample", "evaluate"))
    weights = _weight_bytes(planner.policy.module) * (len(recipe.stages) + trainings + epochs)
    return weights + helpers + made * (_ROW_BYTES + _content_bytes(planner.splits.train))


def _weight_bytes(module: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _content_bytes(samples: Samples) -> float:
    if samples.kind == "text":
        return float(np.mean([len(str(text)) for text in samples.content[:500]]))
    return float(samples.content[0].nbytes) if len(samples) else 0.0


def theory(planner: Planner) -> Verdict | None:
    """The verdict on rounds that train on a mixture; None where there are none."""
    rounds = planner.recipe.rounds
    if rounds is None or rounds.count == 0 or rounds.sample is None:
        return None
    curators = [str(c["name"]) for c in rounds.curate]
    settings = planner.parts.sampling
    return verdict(
        rounds.mix.policy, synthetic=expected.kept(rounds),
        real=len(where(planner.splits.train, rounds.mix.where, "rounds.mix")), rounds=rounds.count,
        lam=rounds.mix.lambda_, curator=curators[-1] if curators else "", candidates=rounds.sample.candidates,
        kept=expected.share_kept(rounds), temperature=float(getattr(settings, "temperature", 1.0) or 1.0),
        guidance=float(getattr(settings, "guidance", 1.0) or 1.0), modes=max(2, len(planner.splits.classes) or 10),
        size=rounds.mix.size,
    )
