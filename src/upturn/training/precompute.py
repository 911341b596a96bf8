"""No-grad forward passes before a step: cached reference log-probs, and the columns that ``prepare`` needs.

An objective names in ``before`` the model outputs for its ``prepare``: columns "before_…" (N, T) of a global batch.
Where a set is drawn for one step that sees it whole, the precomputed pass is the one that is trained: its log-probs
are also stored as columns "live_…" that still carry their gradient, and no second pass is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from upturn.protocols import Objective, Trainable
from upturn.training.feeds import REFERENCE, Feed, FixedFeed, OnlineFeed
from upturn.training.forward import ForwardPass
from upturn.training.packing import consecutive, tokens_of
from upturn.training.setup import TrainingSetup
from upturn.training.state import TrainingState
from upturn.types import Batch, Outputs

POLICY_OUTPUTS = frozenset({"log_probs", "values"})  # outputs of the policy itself
_LIVE = "live_"
NoGradPass = Callable[[Batch, int], Outputs]  # examples and their place in the global batch


def required_columns(objective: Objective) -> frozenset[str]:
    """Of "log_probs", "ref_log_probs" and "values"."""
    return objective.before


def columns(
    required: frozenset[str], batch: Batch, parts: Sequence[torch.Tensor], *, policy: NoGradPass, reference: NoGradPass
) -> dict[str, torch.Tensor]:
    """Columns "before_…" and "before_mask", without gradient; ``parts`` are consecutive examples, all together."""
    found: dict[str, list[torch.Tensor]] = {}
    for examples in parts:
        start, part = int(examples[0]), batch.take(examples)
        outputs = _detached(policy(part, start)) if required & POLICY_OUTPUTS else {}
        if "ref_log_probs" in required:
            if REFERENCE in part.columns:
                outputs["ref_log_probs"] = part[REFERENCE]
            else:
                out = reference(part, start)
                outputs["ref_log_probs"] = out.log_probs
                outputs.setdefault("mask", out.mask / out.draws)
        for name in (*sorted(required), "mask"):
            value = outputs.get(name)
            if value is not None:
                found.setdefault(name, []).append(value.cpu())
    return {f"before_{name}": torch.cat(parts) for name, parts in found.items()}


def live_columns(live: Outputs, required: frozenset[str]) -> dict[str, torch.Tensor]:
    """Of a pass over the whole batch with gradient: detached outputs as "before_…", and the outputs as "live_…"."""
    detached = {
        name: value for name, value in _detached(live).items() if name in required | {"mask"} and value is not None
    }
    outputs = {"log_probs": live.log_probs, "mask": live.mask, "values": live.values}
    return {f"before_{name}": value.cpu() for name, value in detached.items()} | {
        f"{_LIVE}{name}": value for name, value in outputs.items() if value is not None
    }


def _detached(out: Outputs) -> dict[str, torch.Tensor | None]:
    # several draws estimate one log-prob: their mask holds the weight of each
    return {"log_probs": out.log_probs.detach(), "values": None if out.values is None else out.values.detach(),
            "mask": out.mask / out.draws}


def live_outputs(micro: Batch, whole: Outputs | None) -> Outputs | None:
    """The precomputed pass with gradient, its rows in the order of ``micro``; None where there was none."""
    if whole is None or f"{_LIVE}log_probs" not in micro.columns:
        return None
    values = micro[f"{_LIVE}values"] if whole.values is not None else None
    return replace(whole, log_probs=micro[f"{_LIVE}log_probs"], mask=micro[f"{_LIVE}mask"], values=values)


def one_pass(feed: Feed, size: int | None, module: torch.nn.Module) -> bool:
    """Whether each set is drawn for a single step that sees it at once, without dropout."""
    if not isinstance(feed, OnlineFeed) or feed.steps_per_epoch != 1 or (size is not None and size < feed.prompts):
        return False
    dropping = (getattr(part, name, 0) for part in module.modules() for name in ("p", "attention_dropout"))
    return not any(isinstance(share, float) and share > 0 for share in dropping)


def with_reference(
    setup: TrainingSetup, model: Trainable, forward: ForwardPass
) -> tuple[Feed, Trainable | None]:
    """The feed with cached reference log-probs where they never change; else the feed and the reference model.

    The model is None where it is not needed.
    """
    if "ref_log_probs" not in setup.objective.inputs | required_columns(setup.objective):
        return setup.feed, None
    feed = setup.feed
    # where a forward pass draws noise, nothing can be cached; a short stage would not use all of it
    if (
        isinstance(feed, FixedFeed) and len(feed.examples) <= setup.total_steps * setup.spec.batch_size
        and model.draw(feed.batch(0), 0, 0) is None
    ):
        model.module.eval()
        return feed.with_reference(lambda part: forward.no_grad(model, part, 0, 0).log_probs), None
    return feed, setup.adapter.reference(model)


@dataclass(eq=False)
class Precomputation:
    """Prepares global batches. ``live`` is the pass with gradient of the current step, where it ran in advance."""

    setup: TrainingSetup
    state: TrainingState
    forward: ForwardPass
    feed: Feed
    reference: Trainable | None
    live: Outputs | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        spec, processes = self.setup.spec, self.forward.accelerator.num_processes
        self.single_pass = (
            processes == 1 and self.setup.uses_rollouts and spec.pack_tokens is None
            and one_pass(self.feed, spec.micro_batch, self.state.model.module)
        )

    def prepare(self, batch: Batch, key: int) -> Batch:
        """The objective's ``prepare``, with the columns that it needs and the values that it adapts."""
        objective, history = self.setup.objective, self.state.history
        required = required_columns(objective)
        if required:
            batch = batch.with_columns(**self._columns(batch, required, key))
        if history.steering:
            ones = torch.ones(len(batch))
            batch = batch.with_given(**{name: ones * value for name, value in history.steering.items()})
        prepared = objective.prepare(batch)
        history.steering = objective.steer(history.steering, prepared)
        return prepared

    def _parts(self, batch: Batch) -> Sequence[torch.Tensor]:
        """A global batch in the parts that go through the model at once, in its own order."""
        spec, order = self.setup.spec, torch.arange(len(batch))
        if spec.pack_tokens is None:
            return torch.split(order, spec.micro_batch or len(batch))
        return consecutive(tokens_of(batch), order, spec.pack_tokens)

    def _columns(self, batch: Batch, required: frozenset[str], key: int) -> dict[str, torch.Tensor]:
        """Columns "before_…" (N, T) of the whole global batch, without gradient and dropout."""
        model, reference = self.state.model, self.reference
        was_training = model.module.training
        once = "log_probs" in required and self.single_pass

        def of_reference(part: Batch, start: int) -> Outputs:
            assert reference is not None
            return self.forward.no_grad(reference, part, key, start)

        model.module.eval()
        found = columns(
            required - POLICY_OUTPUTS if once else required, batch, self._parts(batch),
            policy=lambda part, start: self.forward.no_grad(model, part, key, start), reference=of_reference,
        )
        model.module.train(was_training)
        self.live = None
        if once:  # after the reference: the graph is not held in memory while another model runs
            self.live = self.forward(model, batch.to(self.forward.accelerator.device), None)
            found |= live_columns(self.live, required)
        return found
