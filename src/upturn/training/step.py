"""One optimization step, with the only ``backward()``: micro-batches, the global mean loss, clipping, EMA.

The summed loss is divided by the summed weight of the *global* batch, so that neither micro-batches nor processes
change it.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator

from upturn import seeds
from upturn.errors import RunError
from upturn.protocols import Trainable
from upturn.training.feeds import REFERENCE, Feed
from upturn.training.forward import ForwardPass
from upturn.training.history import IDLE
from upturn.training.packing import micro_batches
from upturn.training.precompute import Precomputation, live_outputs
from upturn.training.schedule import learning_rate
from upturn.training.setup import TrainingSetup
from upturn.training.state import TrainingState
from upturn.types import Batch, Draw, Outputs

_WEIGHT, _LOSS = " weight", " loss"  # among the sums of a step; no metric has such a name
_CLIP_SLACK = 1e-6  # added to the norm as torch's clip_grad_norm_ does
_IDLE_STEPS = 10  # steps in a row without a gradient, and no fewer than an epoch, before a stage fails


@dataclass(frozen=True)
class StepResult:
    """The mean loss and metrics of a global batch, the norm of its gradient before clipping, and its size.

    tokens  of a text model: those that the loss is over (the mask is 1), in the whole global batch; else None
    """

    loss: float
    metrics: dict[str, float]
    gradient_norm: float
    examples: int = 0
    tokens: int | None = None


@dataclass(frozen=True, eq=False)
class OptimizationStep:
    """Calling it runs step ``step`` (from 0) and gives its result.

    Everything that a step uses is a function of its number: order, noise, learning rate, decay of the EMA.
    """

    setup: TrainingSetup
    state: TrainingState
    accelerator: Accelerator
    forward: ForwardPass
    feed: Feed
    reference: Trainable | None
    precomputation: Precomputation

    def __call__(self, step: int) -> StepResult:
        setup, module, count = self.setup, self.state.model.module, self.accelerator.num_processes
        key = int(seeds.fold(setup.key, step)[0])
        batch = self.feed.batch(step, lambda raw: self.precomputation.prepare(raw, key))
        setup.adapter.before_step(self.state.model, step, partial(self._mean_loss, batch, key))
        sums: dict[str, torch.Tensor] = {}
        parts, share = self._micro_batches(batch)
        with self.forward.narrow(module):
            for i, part in enumerate(parts):
                start = int(part[0])
                seeds.seed_torch(int(seeds.fold(key, start)[0]))
                with self.accelerator.no_sync(module) if i < len(parts) - 1 else nullcontext():
                    out, micro = self.outputs(batch.take(part), key, start)
                    loss = setup.objective(out, micro)
                    self.accelerator.backward(loss.sum * share)
                self.forward.narrow.collect()
                for name, value in {_WEIGHT: loss.weight, _LOSS: loss.sum, **loss.metrics}.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().double() * share
        names = sorted(sums)
        joined = torch.stack([sums[name] for name in names])
        if count > 1:
            joined = self.accelerator.reduce(joined, reduction="sum")
        result = self._update(step, dict(zip(names, joined, strict=True)), count)
        # the global batch is on the CPU: counting does not wait for the device
        learned = int(batch["mask"].sum()) if self.state.model.kind == "text" and "mask" in batch.columns else None
        return replace(result, examples=len(batch), tokens=learned)

    def outputs(self, micro: Batch, key: int, start: int) -> tuple[Outputs, Batch]:
        """The model's outputs for examples from ``start`` of a global batch, and those examples on the device."""
        micro = micro.to(self.accelerator.device)
        draw = self.forward.draw(self.state.model, micro, key, start)
        out = live_outputs(micro, self.precomputation.live)
        if out is None:
            out = self.forward(self.state.model, micro, draw)
        return self._with_reference(out, micro, draw)

    def _with_reference(self, out: Outputs, micro: Batch, draw: Draw | None) -> tuple[Outputs, Batch]:
        if "ref_log_probs" not in self.setup.objective.inputs:
            return out, micro
        cached = next((micro[name] for name in (REFERENCE, "before_ref_log_probs") if name in micro.columns), None)
        if cached is None:
            assert self.reference is not None
            with torch.no_grad():
                cached = self.forward(self.reference, micro, draw).log_probs
        return replace(out, ref_log_probs=cached), micro

    @torch.no_grad()
    def _mean_loss(self, batch: Batch, key: int, examples: int) -> float:
        """Of the first examples of a global batch with the weights as they are, in evaluation mode."""
        module = self.state.model.module
        micro = batch.take(torch.arange(min(examples, len(batch)))).to(self.accelerator.device)
        draw = self.forward.draw(self.state.model, micro, key, 0)
        module.eval()
        try:
            loss = self.setup.objective(*self._with_reference(self.forward(self.state.model, micro, draw), micro, draw))
        finally:
            module.train()
        return float(loss.sum) / max(float(loss.weight), torch.finfo(torch.float32).tiny)

    def _micro_batches(self, batch: Batch) -> tuple[list[torch.Tensor], float]:
        """This process's share of a global batch in parts, and 1, the factor of their losses.

        A process without a share of a small last batch still takes part in the exchange of gradients, by the factor 0.
        """
        examples, rank, count = len(batch), self.accelerator.process_index, self.accelerator.num_processes
        first, last = examples * rank // count, examples * (rank + 1) // count
        if first == last:
            return [torch.tensor([min(first, examples - 1)])], 0.0
        return list(micro_batches(batch, range(first, last), self.setup.spec)), 1.0

    def _update(self, step: int, sums: dict[str, torch.Tensor], processes: int) -> StepResult:
        """The optimizer's step, with the gradient of the global mean; the mean loss and metrics."""
        setup, state = self.setup, self.state
        weight = sums.pop(_WEIGHT)
        # several processes have averaged their gradients: times their number gives the sum
        norm = self._scaled(processes / weight)
        names = sorted(sums)
        # the only synchronization with the device in a step
        total, gradient_norm, *means = torch.stack(
            [weight, norm.double(), *(sums[name] / weight for name in names)]
        ).tolist()
        if total <= 0:
            self._skip(step)
            return StepResult(0.0, {IDLE: 1.0}, 0.0)
        if not math.isfinite(gradient_norm):
            raise RunError(
                f"the loss is not a number any more (gradient norm {gradient_norm})",
                where=f"{setup.where}, step {step + 1}",
                fix="Lower learning_rate or clip; everything before this stage is kept.",
            )
        rate = learning_rate(setup.spec, step, setup.total_steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.history.idle_in_a_row = 0
        state.optimizer.step()
        state.optimizer.grad_scale = None  # type: ignore[attr-defined]  # see ``_scaled``
        setup.adapter.after_step(state.model, step + 1, rate)  # some adapters read the gradients of the step
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.update(step + 1)
        metrics = dict(zip(names, means, strict=True))
        return StepResult(metrics.pop(_LOSS), metrics, gradient_norm)

    def stuck(self) -> str:
        """Why it is of no use to go on: an epoch of groups that are all ties; "" before that."""
        idle = self.state.history.idle_in_a_row
        if idle < max(_IDLE_STEPS, self.feed.steps_per_epoch):
            return ""
        return f"nothing to learn in {idle} steps in a row: the candidates of every prompt have equal rewards"

    def _scaled(self, factor: torch.Tensor) -> torch.Tensor:
        """Gradients times ``factor``, with the adapter's own, clipped; their norm before.

        In narrow passes a fused optimizer multiplies by both factors itself, which saves two rounds through memory.
        """
        setup, state = self.setup, self.state
        gradients = [p.grad for p in state.parameters if p.grad is not None]
        if not self.forward.narrow.on:
            torch._foreach_mul_(gradients, factor)
        extra = setup.adapter.regulariser(state.model)
        if self.forward.narrow.on and extra is None and state.optimizer.defaults.get("fused"):
            norm = torch.nn.utils.get_total_norm(gradients) * factor
            factor = factor * (setup.spec.clip / (norm + _CLIP_SLACK)).clamp(max=1.0)
            state.optimizer.grad_scale = (1 / factor).float()  # type: ignore[attr-defined]
            state.optimizer.found_inf = torch.zeros((), device=norm.device)  # type: ignore[attr-defined]
            return norm
        if self.forward.narrow.on:
            torch._foreach_mul_(gradients, factor)
        if extra is not None:
            self.accelerator.backward(extra)
        return torch.nn.utils.clip_grad_norm_(state.parameters, setup.spec.clip)

    def _skip(self, step: int) -> None:
        """A batch without weight: of samples an error; of groups, which may all be ties, it is counted."""
        history = self.state.history
        history.idle += 1
        history.idle_in_a_row += 1
        if self.setup.objective.example == "sample":
            raise RunError(
                "a batch in which nothing is trained on: every weight or label is masked",
                where=f"{self.setup.where}, step {step + 1}", fix="Check the mixture and its weights.",
            )
        self.state.optimizer.zero_grad(set_to_none=True)
