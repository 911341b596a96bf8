"""The only backward(): one objective, one feed, any number of processes, stopped and resumed anywhere.

The summed loss is divided by the summed weight of the *global* batch, so that neither micro-batches nor processes
change it. Everything that a step uses is a function of its number: order, noise, learning rate, decay of the average.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from upturn import seeds
from upturn.config.schema import Training
from upturn.errors import RunError, UserError
from upturn.protocols import Adapter, Objective, Trainable
from upturn.store import checkpoints
from upturn.training import optimizers, precompute
from upturn.training.ema import Average
from upturn.training.feeds import REFERENCE, Feed, FixedFeed
from upturn.types import Batch, Outputs

_WEIGHT, _LOSS = " weight", " loss"  # among the sums of a step; no metric is called so
_HELD_OUT_CHUNK = 512  # examples in one forward pass of the held-out loss
_BETTER = 1e-4  # a held-out loss is a gain if it is lower by this share: less is float noise at a plateau
_ATTACH = 2**62  # the number that stands for an adapter's own chance among the steps' keys
_NOTHING = "idle"  # the metric of a step in which nothing was learned
_IDLE = 10  # steps in a row without anything to learn, and no fewer than an epoch, before a stage gives up
_OPTIMIZER = "optimizer."  # begins the names of its tensors in a saved state
_COMPILE_FROM = 1000  # steps below which compiling on an accelerator costs more than it gives


@dataclass
class History:
    """What happened, JSON-ready: one point every held-out evaluation, and at the end."""

    points: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    stopped: str = ""  # why it ended before its last step
    best: float = math.inf
    since_best: int = 0
    idle: int = 0  # steps in which nothing could be learned: all candidates of every prompt were alike
    idle_in_a_row: int = 0
    saved: int = 0  # the step of the last saved state
    steering: dict[str, float] = field(default_factory=dict)  # what an objective adapts as it goes: a KL coefficient


@dataclass(frozen=True)
class Plan:
    """One stage of training, all its parts live."""

    spec: Training
    objective: Objective
    adapter: Adapter
    feed: Feed
    key: int
    where: str  # named in messages
    held_out: Batch | None = None
    progress: Path | None = None  # folder of states to resume from
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None
    on_epoch: Callable[[int], None] = lambda epoch: None  # after an epoch that the recipe lists
    log: Callable[[Mapping[str, float], int], None] = lambda values, step: None

    @property
    def total_steps(self) -> int:
        if self.spec.steps is not None:
            return self.spec.steps
        return (self.spec.epochs or 0) * self.feed.steps_per_epoch


def learning_rate(spec: Training, step: int, total: int) -> float:
    """Of step ``step`` (from 0): linear warm-up, then constant, a half cosine or a line to zero."""
    warm = round(spec.warmup * total)
    if step < warm:
        return spec.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return spec.learning_rate * (1 - done if spec.schedule == "linear" else 1.0)


def accelerator_for(spec: Training) -> Accelerator:
    """Device, precision and processes, as ``accelerate`` finds them."""
    precision = {"fp32": "no", "bf16": "bf16"}.get(spec.precision, "no")
    if spec.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        precision = "bf16"
    # accelerate keeps one precision a process; stages have each their own. What connects processes is kept.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def train(model: Trainable, plan: Plan) -> History:
    """Train ``model`` in place; it ends with the averaged weights where the stage asks for an average.

    Raises RunError when a loss or a gradient is not finite, naming the step; the last saved state stays.
    """
    return _Session(model, plan).run()


class _Session:
    """The state of one stage while it runs."""

    def __init__(self, model: Trainable, plan: Plan) -> None:
        self.model, self.plan, self.spec = model, plan, plan.spec
        self.accelerator = accelerator_for(plan.spec)
        self.total = plan.total_steps
        plan.adapter.attach(model, self.total, int(seeds.fold(plan.key, _ATTACH)[0]))
        model.module.to(self.accelerator.device)
        self.feed: Feed = plan.feed
        self.reference: Any = None
        self._refer()
        self.parameters = list(plan.adapter.parameters(model))
        self.optimizer = optimizers.optimiser(plan.spec, self.parameters)
        self.average = Average(self.parameters, plan.spec.ema) if plan.spec.ema else None
        self.history = History()
        self.once = (self.accelerator.num_processes == 1 and self._acting
                     and precompute.one_pass(self.feed, plan.spec.micro_batch, model.module))
        self.live: Outputs | None = None  # the pass of this step that was made beforehand

    def _refer(self) -> None:
        """The model at the entry: its log-probs of a fixed set once, where they never change; else at hand."""
        plan, model = self.plan, self.model
        if "ref_log_probs" not in plan.objective.inputs | precompute.asked(plan.objective):
            return
        feed = plan.feed
        # where a forward pass draws noise, nothing of it can be kept; a short stage would not use all of it
        if (
            isinstance(feed, FixedFeed) and len(feed.examples) <= self.total * self.spec.batch_size
            and model.draw(feed.batch(0), 0, 0) is None
        ):
            model.module.eval()
            self.feed = feed.referred(lambda part: self._quietly(model, part, 0, 0).log_probs)
        else:
            self.reference = plan.adapter.reference(model)

    def run(self) -> History:
        bare = self.model.module
        self._resume()
        began = time.perf_counter() - self.history.seconds
        self.model.module = self.accelerator.prepare(bare)
        if self.accelerator.device.type == "cuda" and self.total >= _COMPILE_FROM:
            bare.compile()
        try:
            bare.train()
            for step in range(self.history.steps, self.total):
                loss, metrics = self._step(step)
                self.history.steps = step + 1
                self.history.seconds = time.perf_counter() - began
                self.plan.on_step(step + 1, self.total, loss)
                if self._after(step + 1, loss, metrics):
                    break
        finally:
            self.model.module = bare
        if self.average is not None:
            self.average.settle()
        bare.eval()
        return self.history

    def _step(self, step: int) -> tuple[float, dict[str, float]]:
        plan, count = self.plan, self.accelerator.num_processes
        key = int(seeds.fold(plan.key, step)[0])
        batch = self.feed.batch(step, lambda raw: self._ready(raw, key))
        sums: dict[str, torch.Tensor] = {}
        parts = list(self._parts(len(batch)))
        for i, (start, stop) in enumerate(parts):
            seeds.seed_torch(int(seeds.fold(key, start)[0]))
            held = self.accelerator.no_sync(self.model.module) if i < len(parts) - 1 else nullcontext()
            with held:
                micro = batch.take(torch.arange(start, max(stop, start + 1)))
                out, micro = self._outputs(self.model, micro, key, start)
                loss = plan.objective(out, micro)
                # a process without a share of a small last batch still takes part in the exchange of gradients
                share = 1.0 if stop > start else 0.0
                self.accelerator.backward(loss.sum * share)
            for name, value in {_WEIGHT: loss.weight, _LOSS: loss.sum, **loss.metrics}.items():
                sums[name] = sums.get(name, 0.0) + value.detach().double() * share
        names = sorted(sums)
        joined = torch.stack([sums[name] for name in names])
        if count > 1:
            joined = self.accelerator.reduce(joined, reduction="sum")
        return self._apply(step, dict(zip(names, joined, strict=True)), count)

    def _apply(self, step: int, sums: dict[str, torch.Tensor], processes: int) -> tuple[float, dict[str, float]]:
        """The optimiser's step, with the gradient of the global mean; the mean loss and metrics."""
        weight = sums.pop(_WEIGHT)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # several processes have averaged their gradients: times their number gives the sum
        torch._foreach_mul_(gradients, processes / weight)
        extra = self.plan.adapter.regulariser(self.model)
        if extra is not None:
            self.accelerator.backward(extra)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip)
        names = sorted(sums)
        # the one time in a step that the device is waited for
        said = torch.stack([weight, norm.double(), *(sums[name] / weight for name in names)]).tolist()
        if said[0] <= 0:
            self._nothing(step)
            return 0.0, {_NOTHING: 1.0}
        if not math.isfinite(said[1]):
            raise RunError(
                f"the loss is not a number any more (gradient norm {said[1]})",
                where=f"{self.plan.where}, step {step + 1}",
                fix="Lower learning_rate or clip; everything before this stage is kept.",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, step, self.total)
        self.history.idle_in_a_row = 0
        self.optimizer.step()
        self.plan.adapter.after_step(self.model, step + 1)  # some look at the gradients of the step
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step + 1)
        metrics = dict(zip(names, said[2:], strict=True))
        return metrics.pop(_LOSS), metrics

    def _nothing(self, step: int) -> None:
        """A batch without weight: of samples an error at once; of groups, which may all be ties, after an epoch."""
        self.history.idle += 1
        self.history.idle_in_a_row += 1
        patience = max(_IDLE, self.feed.steps_per_epoch)
        if self.plan.objective.example == "sample" or self.history.idle_in_a_row >= patience:
            raise RunError(
                "a batch in which nothing is trained on: every weight or label is masked, or every group is a tie",
                where=f"{self.plan.where}, step {step + 1}", fix="Look at the mixture and its weights, or the rewards.",
            )
        self.optimizer.zero_grad(set_to_none=True)

    def _ready(self, batch: Batch, key: int) -> Batch:
        """A global batch with all that ``prepare`` asks for: log-probs before the step, what is adapted."""
        wanted = precompute.asked(self.plan.objective)
        if wanted:
            batch = batch.with_columns(**self._before(batch, wanted, key))
        if self.history.steering:
            ones = torch.ones(len(batch))
            batch = batch.with_given(**{name: ones * value for name, value in self.history.steering.items()})
        prepared = self.plan.objective.prepare(batch)
        if hasattr(self.plan.objective, "steer"):
            self.history.steering = self.plan.objective.steer(self.history.steering, prepared)
        return prepared

    def _before(self, batch: Batch, wanted: frozenset[str], key: int) -> dict[str, torch.Tensor]:
        """Columns "before_…" (N, T) of the whole global batch, without gradient and dropout."""
        module = self.model.module
        was_training = module.training
        once = "log_probs" in wanted and self.once
        module.eval()
        found = precompute.columns(
            wanted - precompute.OWN if once else wanted, batch, self.spec.micro_batch or len(batch),
            ask=lambda part, at: self._quietly(self.model, part, key, at),
            ask_reference=lambda part, at: self._quietly(self.reference, part, key, at),
        )
        module.train(was_training)
        self.live = None
        if once:  # after the reference: its graph need not stand while another model is asked
            with self.accelerator.autocast():
                self.live = self._asked(self.model, batch.to(self.accelerator.device), None)
            found |= precompute.live_columns(self.live, wanted)
        return found

    @property
    def _acting(self) -> bool:
        """Whether log-probs are those of what the policy did."""
        return self.plan.objective.example == "rollout"

    def _asked(self, model: Any, part: Batch, draw: Any) -> Outputs:
        out: Outputs = model.act(part) if self._acting else model.forward(part, draw)
        return out

    @torch.no_grad()
    def _quietly(self, model: Any, part: Batch, key: int, start: int) -> Outputs:
        """One forward pass without gradient, with the chance of this key."""
        draw = None if self._acting else model.draw(part, key, start)
        with self.accelerator.autocast():
            return self._asked(model, part.to(self.accelerator.device), draw)

    def _parts(self, examples: int) -> Iterator[tuple[int, int]]:
        """This process's share of a global batch, in micro-batches, as (start, stop)."""
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        first, last = examples * rank // count, examples * (rank + 1) // count
        size = self.spec.micro_batch or max(1, -(-examples // count))
        if first == last:
            yield min(first, examples - 1), min(first, examples - 1)
        for start in range(first, last, size):
            yield start, min(start + size, last)

    def _outputs(self, model: Any, micro: Batch, key: int, start: int) -> tuple[Outputs, Batch]:
        micro = micro.to(self.accelerator.device)
        draw = None if self._acting else model.draw(micro, key, start)
        out = precompute.taken_along(micro, self.live)
        if out is None:
            with self.accelerator.autocast():
                out = self._asked(model, micro, draw)
        if "ref_log_probs" not in self.plan.objective.inputs:
            return out, micro
        known: Any = micro.columns.get(REFERENCE, micro.columns.get("before_ref_log_probs"))
        if known is None:
            with torch.no_grad(), self.accelerator.autocast():
                frozen: Any = self.reference
                known = self._asked(frozen, micro, draw).log_probs
        return replace(out, ref_log_probs=known), micro

    def _after(self, step: int, loss: float, metrics: Mapping[str, float]) -> bool:
        """Log, evaluate, save; True where the stage is to stop."""
        per_epoch = self.feed.steps_per_epoch
        last = step == self.total
        every = max(1, round(self.spec.held_out_every * per_epoch))
        if step % every == 0 or last or (step == 1 and metrics):
            point = {"step": step, "epoch": step / per_epoch, "loss": loss, **metrics}
            point["learning_rate"] = learning_rate(self.spec, step - 1, self.total)
            if self.plan.held_out is not None:
                point["held_out"] = self.held_out_loss(self.plan.held_out)
                if not self.history.points or point["held_out"] < self.history.best * (1 - _BETTER):
                    self.history.best, self.history.since_best = point["held_out"], 0
                else:
                    self.history.since_best += 1
            self.history.points.append(point)
            self.plan.log(point, step)
        epoch, rest = divmod(step, per_epoch)
        if rest == 0 and epoch in self.spec.checkpoint_epochs:
            with self.average.applied() if self.average else nullcontext():
                self.plan.on_epoch(epoch)
        if self.spec.patience and self.history.since_best >= self.spec.patience:
            self.history.stopped = f"no better held-out loss in {self.spec.patience} evaluations"
            return True
        if self._too_far(metrics, step):
            return True
        every = self.spec.save_every
        if not last and self.feed.resumable(step) and step // every > self.history.saved // every:
            self.history.saved = step
            self._save(step)
        return False

    def _too_far(self, metrics: Mapping[str, float], step: int) -> bool:
        """Whether the policy has left its reference by more than the recipe allows; then it stops here."""
        limit = self.spec.kl_limit
        if limit is None or _NOTHING in metrics:
            return False
        if "kl" not in metrics:
            raise UserError(
                "kl_limit is set, but this objective does not measure a KL", where=self.plan.where,
                fix="Remove kl_limit, or use an objective with a reference that reports 'kl'.",
            )
        if metrics["kl"] <= limit:
            return False
        self.history.stopped = f"KL to the reference is {metrics['kl']:.3g} nats, above kl_limit {limit:g}"
        return True

    @torch.no_grad()
    def held_out_loss(self, held_out: Batch) -> float:
        """Of the model as it would be sampled, with the same noise and times at every call."""
        total, weight = 0.0, 0.0
        module = self.model.module
        module.eval()
        with self.average.applied() if self.average else nullcontext():
            for start, rows in held_out.parts(_HELD_OUT_CHUNK):
                out, chunk = self._outputs(self.model, held_out.take(rows), self.plan.key, start)
                loss = self.plan.objective(out, chunk)
                total, weight = total + float(loss.sum), weight + float(loss.weight)
        module.train()
        return total / max(weight, 1e-12)

    def _save(self, step: int) -> None:
        if self.plan.progress is None or not self.accelerator.is_main_process:
            return
        bare = self.accelerator.unwrap_model(self.model.module)
        frozen = {name for name, parameter in bare.named_parameters() if not parameter.requires_grad}
        tensors = {f"model.{name}": value for name, value in bare.state_dict().items() if name not in frozen}
        state = optimizers.tensors(self.optimizer, self.parameters)
        tensors |= {f"{_OPTIMIZER}{name}": value for name, value in state.items()}
        if self.average is not None:
            tensors |= {f"average.{i}": value for i, value in enumerate(self.average.values)}
        checkpoints.write_checkpoint(self.plan.progress / f"step-{step:08d}", tensors, dict(self.history.__dict__))
        checkpoints.prune_checkpoints(self.plan.progress, keep=1)

    def _resume(self) -> None:
        """Go on from the newest whole state, if there is one."""
        if self.plan.progress is None:
            return
        # processes that start together must start from one state, so none may save before all have read
        self.accelerator.wait_for_everyone()
        newest = checkpoints.latest(self.plan.progress)
        if newest is None:
            return
        tensors, scalars = checkpoints.read_checkpoint(newest)
        own = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        left, unknown = self.model.module.load_state_dict(own, strict=False)
        frozen = {name for name, parameter in self.model.module.named_parameters() if not parameter.requires_grad}
        if unknown or set(left) - frozen:
            raise RunError("the saved state is of another model", where=str(newest), fix="Remove it and run again.")
        state = {n.removeprefix(_OPTIMIZER): v for n, v in tensors.items() if n.startswith(_OPTIMIZER)}
        optimizers.restore(self.optimizer, self.parameters, state)
        if self.average is not None:
            self.average.values = [
                tensors[f"average.{i}"].to(p.device) for i, p in enumerate(self.parameters)
            ]
        self.history = History(**scalars)
