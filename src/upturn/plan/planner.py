"""Adds up what a recipe costs, from a few timed steps of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.loop.assembly import Assembly, Evaluator
from upturn.loop.checks.caption_strategy import prompt_for
from upturn.loop.stages.evaluate import EvaluationEvidence
from upturn.loop.stages.load import fitting_rows
from upturn.loop.stages.mix import learned
from upturn.loop.stages.train import count_examples, encode_examples
from upturn.loop.tools import Toolbox, where
from upturn.plan import forward_passes as passes
from upturn.plan import preprocessing, several_sizes, short_steps, timing
from upturn.plan.forward_passes import Passes
from upturn.plan.memory import Memory
from upturn.plan.pass_sizes import TIMED_BATCHES, bytes_of, flops_of_a_batch, largest_pass
from upturn.plan.result import COMMIT, Row
from upturn.plan.short_steps import StepCost
from upturn.plan.timing import Line, SamplingTime
from upturn.protocols import INITIAL_POLICY, ClosedForm, Metric, OptimizerFactory, Trainable
from upturn.store.units import model_unit, stage_unit
from upturn.training.feeds import Feed, FixedFeed
from upturn.types import Array, Batch, Mixture, Prompt, Ragged, Samples, Splits, objects

if TYPE_CHECKING:
    from upturn.protocols import SamplingSettings

_HELD_OUT = 512  # samples in a held-out loss of the training curve
_HELD_OUT_FEW = 1  # held-out groups that a metric of a large model is timed on
_FEW_ROWS = 8  # texts that a forward pass without gradient is measured on
_COMPARED = 0.05  # seconds to compare one metric of two checkpoints, by pairs
_FORWARD = 1 / 3  # of a step's operations
_LENGTHS = 500  # texts that the length of texts is estimated from
_LONG = 0.95  # quantile of their lengths at which a batch of texts is taken to have ended


@dataclass(frozen=True)
class Timed:
    """Examples to time steps on, as the trainer is fed with them; ``count`` is how many the run will have."""

    examples: Batch
    feed: Feed
    count: int
    more: int = 0  # batches an epoch beyond those that so many would make, where each image size has its own


@dataclass(frozen=True)
class PromptDraw:
    """What an epoch of online training costs before its steps; it goes ``passes`` times through what was drawn."""

    passes: int = 1
    seconds: float = 0.0
    flops: float = 0.0


class Planner:
    """Live, untrained models of a recipe, and the rows of what is done with them, timed."""

    def __init__(self, parts: Assembly, splits: Splits, loading: float) -> None:
        self.parts, self.recipe, self.splits = parts, parts.recipe, splits
        self.rows = [Row("data", "load", len(splits.train) + len(splits.held_out), 0, 0.0, 2 * loading)]
        self.notes: list[str] = [*splits.notes, *fitting_rows(parts, splits)]
        self._steps: dict[tuple[str | int | None, ...], float] = {}
        self._quiet: dict[tuple[str | int, ...], float] = {}
        self._costs: dict[tuple[str | int | None, ...], StepCost] = {}  # of large models
        self._decoding: dict[tuple[str, str], timing.Decoding] = {}
        self.memory: list[Memory] = []
        self.trainings: list[tuple[str, Training]] = []
        self._measured: list[tuple[Evaluator, Line, Line]] = []
        self._epochs: dict[str, float] = {}  # of the training of a unit
        self._sampled_before = False
        self._words: Line | None = None
        main = self.recipe.models[self.recipe.main_model]
        self._encoding = preprocessing.Encoding(isinstance(main.spec.get("cache"), str))
        self.policy: Any = self._built("policy") if "policy" in self.recipe.models else None
        self.tools = Toolbox(
            splits.train, splits.held_out, splits.classes, parts.features, loader=self._built,
            models={} if self.policy is None else {"policy": self.policy}, fitter=self._another,
        )
        self._fits = 0.0  # seconds of trainings that metrics requested, which are counted and not done

    def _built(self, name: str) -> Trainable:
        if name == INITIAL_POLICY:
            policy: Trainable = self.policy
            return policy
        refit = self.recipe.models[name].refit
        with TemporaryDirectory() as folder:
            if refit is not None and refit.base == "policy":
                self.policy.save(Path(folder))
            model = self.parts.model(name, Path(folder))
            model.without_store()
            model.build(self.splits.train, seeds.key("plan", name))
        model.id = f"plan-{name}"
        if not isinstance(model, ClosedForm):
            import_module("torch._dynamo")  # as every optimiser does at its first step: quicker among other imports
        return model

    def before_rounds(self) -> None:
        """Rows of the helper models, and of the stages that make round 0."""
        for name, model in self.recipe.models.items():
            if model.ready:
                self.rows.append(Row(model_unit(name), "fit", 0, 0, 0.0, 2 * COMMIT))
            elif model.fit is not None:
                own = self.splits.train if model.fit.split == "train" else self.splits.held_out
                chosen, _ = learned(self.parts.objective(model.fit), where(own, model.fit.where, f"models.{name}.fit"))
                self.train_on(model_unit(name), "fit", self.tools.model(name), model.fit, chosen, len(chosen))
        if self.recipe.filter is not None:
            kept, row, notes = preprocessing.filtered(self.parts, self.splits, self.tools)
            self.splits = replace(self.splits, train=kept)
            self.tools.train = kept
            self.rows.append(row)
            self.notes += notes
        if self.recipe.score_words is not None:
            count = len(self.splits.train) + len(self.splits.held_out)
            self.rows.append(Row("data", "score_words", count, 0, 0.0, self.words(count) + COMMIT))
        for stage in self.recipe.all_stages:
            unit = stage_unit(stage.name)
            if stage not in self.recipe.stages:  # the model as it came
                self.rows.append(Row(unit, "train", 0, 0, 0.0, 2 * COMMIT))
                self.evaluate(unit, stage)
                continue
            chosen = where(self.splits.train, stage.where, f"stages.{stage.name}")
            chosen, _ = learned(self.parts.objective(stage), chosen)
            self.train_on(unit, "train", self.policy, stage, chosen, len(chosen))
            self.evaluate(unit, stage)

    def words(self, count: int) -> float:
        """Seconds to find the score words of so many images."""
        if self._words is None:
            self._words = preprocessing.score_words_seconds(self.parts, self.splits, self.tools)
        return self._words(count)

    def train_on(
        self, unit: str, step: str, model: Trainable, spec: Training, like: Samples, rows: int, new: int | None = None
    ) -> None:
        """A row of training on ``rows`` samples that are encoded as these are, ``new`` of them in this round."""
        more = several_sizes.more_batches(like, spec.batch_size)
        like = several_sizes.of_one_size(like)
        objective = self.parts.objective(spec)
        total = count_examples(like, objective)
        some = like.take(np.isin(like.group, np.unique(like.group)[: TIMED_BATCHES * spec.batch_size]))
        mixture = Mixture(some, np.ones(len(some)))
        examples, _ = self._encoding.timed(model, len(some), lambda: encode_examples(model, mixture, objective))
        held_out = min(_HELD_OUT, len(self.splits.held_out)) if objective.example == "sample" else 0
        self.rows += self._encoding.row(unit, model, rows + held_out, new)
        there = len(examples) / max(1, count_examples(some, objective))  # less than 1 where rows hold nothing to learn
        count = max(1, round(rows * total / len(like) * there))
        feed = FixedFeed(examples, spec.batch_size, 0)
        self.train(unit, step, model, spec, Timed(examples, feed, count, more), rows)

    def train(
        self, unit: str, step: str, model: Trainable, spec: Training, timed: Timed, rows: int,
        draw: PromptDraw = PromptDraw(),
    ) -> None:
        """A row of training on ``rows`` samples; ``draw`` is what each epoch costs beside its steps."""
        if isinstance(model, ClosedForm) and self.parts.objective(spec).maximum_likelihood:
            self.rows.append(Row(unit, step, rows, 0, 0.0, 2 * COMMIT))
            return
        per_epoch = draw.passes * (-(-timed.count // spec.batch_size) + timed.more)
        steps = spec.steps or (spec.epochs or 0) * per_epoch
        self._epochs[unit] = steps / per_epoch
        each = self._step_seconds(model, spec, timed)
        self._add_memory(unit, step, model, spec, timed, steps)
        if self.parts.objective(spec).example == "sample":
            every = max(1, round(spec.held_out_every * per_epoch))
            each *= 1 + _FORWARD * min(_HELD_OUT, len(self.splits.held_out)) / spec.batch_size / every
        draws = -(-steps // per_epoch)
        objective = self.parts.objective(spec)
        if spec.online is None:
            forward = passes.of_a_fixed_set(objective, model, timed.examples, timed.count, steps, spec.batch_size)
        else:
            forward = passes.of_draws(objective, model, spec, spec.online, draws)
        flops = timing.flops_of(model, timed.examples, spec.batch_size) * steps + draw.flops * draws
        flops += _FORWARD * timing.flops_of(model, timed.examples, spec.batch_size) * forward.quiet / spec.batch_size
        seconds = steps * each + draw.seconds * draws
        seconds += forward.beside * self._quiet_seconds(model, spec, timed, forward)
        self.rows.append(Row(unit, step, rows, steps, flops, seconds + 2 * COMMIT))
        if spec.patience:
            self.notes.append(f"{unit} may stop earlier than the {steps} steps counted here (patience)")

    def _step_seconds(self, model: Trainable, spec: Training, timed: Timed) -> float:
        """Timed once for all stages with equal steps: the schedule and the number of steps do not matter."""
        whole = max(1.0, min(spec.batch_size, timed.count) / len(timed.examples))
        if short_steps.is_large(model):
            cost = self._cost(model, spec, timed)
            return cost.fixed + cost.per_flop * 3 * whole * flops_of_a_batch(model, timed.feed)
        same_step = self._same_step(model, spec)
        if same_step not in self._steps:
            self._steps[same_step] = timing.step_seconds(self.parts, model, spec, timed.feed)
        return self._steps[same_step] * whole

    def _cost(self, model: Trainable, spec: Training, timed: Timed) -> StepCost:
        same_step = self._same_step(model, spec)
        if same_step not in self._costs:
            self._costs[same_step] = short_steps.cost(self.parts, model, spec, timed.feed, timed.examples)
        return self._costs[same_step]

    @staticmethod
    def _same_step(model: Trainable, spec: Training) -> tuple[str | int | None, ...]:
        return (
            model.id, repr(spec.objective), repr(spec.adapter), spec.batch_size, spec.micro_batch, spec.ema > 0,
            repr(spec.online),
        )

    def _add_memory(self, unit: str, step: str, model: Trainable, spec: Training, timed: Timed, steps: int) -> None:
        """Of the training of a large model; that of others is less than the libraries take."""
        if not short_steps.is_large(model) or not steps:
            return
        cost, objective, own = self._cost(model, spec, timed), self.parts.objective(spec), bytes_of(model)
        reference = "ref_log_probs" in objective.inputs | objective.before and self.parts.adapter(spec).trains_all
        cached = spec.online is None and timed.count <= steps * spec.batch_size
        before = own if model is self.policy and self.memory else 0.0  # the model of the unit before stays loaded
        tokens = largest_pass(timed.examples, spec)
        factory: OptimizerFactory = components.make("optimizer", spec.optimizer, "optimizer")
        self.memory.append(Memory(
            unit, step, own + before + (own if reference and not cached else 0.0), 4.0 * cost.trained,
            cost.trained * (factory.state_bytes + (4.0 if spec.ema else 0.0)), cost.per_token * tokens,
            logits=model.logits_bytes(tokens),
        ))
        self.trainings.append((unit, spec))

    def add_sampling_memory(
        self, unit: str, step: str, settings: SamplingSettings, prompts: int, candidates: int, held_out_rows: int = 0
    ) -> None:
        """Of sampling from a large model, and of metrics that read so many held-out rows at once."""
        if self.policy is None or not short_steps.is_large(self.policy):
            return
        rows, completion = min(prompts * candidates, settings.batch), self._usual_length or 0
        completion = min(completion, settings.longest or completion)
        cache, logits = self.policy.sampling_bytes(settings, rows, self._prompt_length + completion)
        read = min(held_out_rows, len(self.splits.held_out)) * (self._prompt_length + (self._usual_length or 0))
        own, activations = bytes_of(self.policy), self._quiet_bytes * read if read else 0.0
        if activations > cache + logits:  # the metrics follow when what sampling needs is free again
            self.memory.append(Memory(unit, step, own, activations=activations))
        else:
            self.memory.append(Memory(unit, step, own, kv_cache=cache, logits=logits))

    @cached_property
    def _quiet_bytes(self) -> float:
        """Of activations, for each token that the policy reads without gradient."""
        return short_steps.quiet_bytes(self.policy, self.policy.encode(self.splits.train.take(np.arange(_FEW_ROWS))))

    @property
    def batch(self) -> int:
        """Rows that are sampled at once, at most."""
        if self.policy is None:
            return 1
        settings = [e.settings for e in self.parts.evaluators]
        settings += [self.parts.sampling] if self.recipe.rounds is not None else []
        return max((each.batch for each in settings), default=1)

    def trained_bytes(self, spec: Training, whole: float) -> float:
        """Of the files that a training of the policy writes: all weights, or those of its adapter."""
        cost = self._costs.get(self._same_step(self.policy, spec))
        return whole if cost is None or self.parts.adapter(spec).trains_all else 4.0 * cost.trained

    def loaded_bytes(self) -> float:
        """Of the models that this plan holds, and a run does not."""
        return sum(bytes_of(model) for model in {id(m): m for m in self.tools.models.values()}.values())

    def _quiet_seconds(self, model: Trainable, spec: Training, timed: Timed, forward: Passes) -> float:
        """Of one example without gradient; 0 where no step needs more than is timed with it."""
        if not forward.beside:
            return 0.0
        if short_steps.is_large(model):
            cost = self._cost(model, spec, timed)
            batch = timed.feed.batch(0)
            return cost.quiet_per_flop * model.flops(batch) / len(batch)
        acting = self.parts.objective(spec).example == "rollout"
        same_step = (model.id, acting, spec.batch_size, timed.examples.candidates)
        if same_step not in self._quiet:
            self._quiet[same_step] = timing.quiet_seconds(model, timed.examples, spec.batch_size, acting)
        return self._quiet[same_step]

    def sampled(self, of: Samples, candidates: int, settings: SamplingSettings, wanted: int) -> SamplingTime:
        """Sampling as the trained model will do it, timed on prompts of these samples."""
        prompts = [prompt_for(self.policy, p) for p in of.take(np.arange(min(len(of), wanted))).prompts]
        settings = self.as_trained(settings)
        if short_steps.is_large(self.policy) and self.policy.kind == "text":
            return self._sampled_text(of, prompts, candidates, settings)
        if not self._sampled_before:
            guides = timing.guides_of(self.policy, settings)
            self.policy.sample(prompts[:1], timing.candidate_keys(1, 1), settings, guides)  # imports and allocates
            self._sampled_before = True
        return timing.sampled(self.policy, prompts, candidates, settings, wanted)

    def _sampled_text(
        self, of: Samples, prompts: list[Prompt], candidates: int, settings: SamplingSettings
    ) -> SamplingTime:
        """Timed on a few tokens; the samples are the data's own texts, so that they have the usual lengths."""
        same = (self.policy.id, repr(settings))
        if same not in self._decoding:
            self._decoding[same] = timing.decoding(self.policy, prompts, settings)
        found = self._decoding[same]
        length = self._usual_length or 1
        limit = settings.longest
        samples = found.samples.take(np.repeat(np.arange(len(found.prompts)), candidates))
        texts = [str(of.content[i % len(of)]) for i in range(len(found.prompts)) for _ in range(candidates)]
        samples = replace(samples, content=objects(texts), candidate=np.tile(np.arange(candidates), len(found.prompts)))
        return SamplingTime(
            found.line(min(limit or length, length), candidates, settings.batch), samples, candidates,
        )

    def as_trained(self, settings: SamplingSettings) -> SamplingSettings:
        """These settings with texts as long as the data's: an untrained text model may never stop."""
        usual = self._usual_length if self.policy.kind == "text" else None
        return settings if usual is None else settings.with_length(usual)

    @cached_property
    def _text_lengths(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Tokens that are learned, and tokens in all, of some of the data's texts; None where there are no tokens."""
        train = self.splits.train
        spread = np.linspace(0, len(train) - 1, min(_LENGTHS, len(train))).astype(int)
        mask = self.policy.encode(train.take(spread)).columns.get("mask")
        if not isinstance(mask, Ragged):
            return None
        kept = mask.sums > 0  # texts that are too long may be dropped
        return (mask.sums[kept], mask.lengths[kept]) if bool(kept.any()) else None

    @property
    def _usual_length(self) -> int | None:
        """Tokens after which a batch of the data's texts has ended, the end token counted; None where none are."""
        found = self._text_lengths
        return None if found is None else max(1, round(float(torch.quantile(found[0], _LONG))))

    @property
    def _prompt_length(self) -> int:
        """Tokens of the longest prompt of the data, about."""
        return 0 if self._text_lengths is None else int((self._text_lengths[1] - self._text_lengths[0]).max())

    def rewards(self, samples: Samples, judge: str = "") -> Array:
        """(N,) by the round's scorers, or by those that label samples for the refitted model ``judge``."""
        scorers = self.parts.judges[judge] if judge else self.parts.scorers
        found = [scorer.score(samples, self.tools).values for scorer, _ in scorers.values()]
        return np.sum(found, axis=0) if found else np.zeros(len(samples))

    def evaluate(self, unit: str, spec: Training) -> None:
        """Rows of an evaluation, and of those of the checkpoints within the training ``spec`` before it."""
        if not self.parts.evaluators:
            return
        if not self._measured:
            self._measured = [(e, *self._measuring(e)) for e in self.parts.evaluators]
        self._evaluation(unit, "evaluate", self._measured)
        ended = self._epochs.get(unit, 0.0)
        listed = [epoch for epoch in sorted(set(spec.checkpoint_epochs)) if epoch <= ended]
        for epoch in listed:
            step = f"epoch-{epoch:04d}"
            if epoch == ended:  # the model that the training ends with: measured already
                self.rows.append(Row(unit, step, 0, 0, 0.0, COMMIT))
            else:
                self._evaluation(unit, step, [found for found in self._measured if found[0].checkpoints])
        if spec.checkpoint_epochs:
            metrics = sum(len(found[0].metrics) for found in self._measured if found[0].checkpoints)
            compared = _COMPARED * metrics * len(listed)
            self.rows.append(Row(unit, "checkpoints", 0, 0, 0.0, compared + COMMIT))

    def _evaluation(self, unit: str, step: str, measured: list[tuple[Evaluator, Line, Line]]) -> None:
        seconds, flops, count = COMMIT, 0.0, 0
        for evaluator, sampling, measuring in measured:
            samples = evaluator.prompts * evaluator.candidates
            seconds += sampling(evaluator.prompts) + measuring(evaluator.prompts)
            flops += samples * self.policy.sampling_flops(evaluator.settings)
            count += samples
        first, sampling, _ = self._measured[0]
        grid = self.recipe.grid
        cells = (len(grid.texts) or grid.prompts) + sum(len(wordings) for wordings in grid.wordings)
        seconds += sampling(cells * grid.per_prompt / first.candidates)
        evaluator = max((found[0] for found in measured), key=lambda e: e.prompts * e.candidates)
        rows = max((m.rows_at_once for found in measured for m in found[0].metrics.values()), default=0)
        self.add_sampling_memory(unit, step, evaluator.settings, evaluator.prompts, evaluator.candidates, rows)
        self.rows.append(Row(unit, step, count, 0, flops, seconds))

    def _measuring(self, evaluator: Evaluator) -> tuple[Line, Line]:
        """Seconds to sample n prompts of an evaluation, and to score and measure them."""
        held_out = where(self.splits.held_out, evaluator.where, f"evaluate.{evaluator.name}")
        sampled = self.sampled(held_out, evaluator.candidates, evaluator.settings, evaluator.prompts)
        rewards = self.rewards(sampled.samples)
        line = self.scoring(sampled, evaluator.prompts)
        for metric in evaluator.metrics.values():

            def measure(count: int, metric: Metric = metric) -> object:
                samples = sampled.first(count)
                known = rewards[: len(samples)]
                return metric.measure(EvaluationEvidence(samples, known, self.tools, 0, evaluator.settings))

            if metric.held_out_only and short_steps.is_large(self.policy):
                line += self._held_out_line(measure, sampled.prompts)
            elif metric.held_out_only:
                line += timing.measuring_once(measure, sampled.prompts, loaded=self._loaded)
            else:
                line += self._measuring_line(measure, sampled, evaluator.prompts)
            line += Line(self._fits_of(measure, sampled.prompts), 0.0)
        return sampled.line, line

    def _held_out_line(self, measure: Callable[[int], object], prompts: int) -> Line:
        """Seconds of a metric of the held-out part alone, timed on few of its groups: it reads all in equal batches."""
        whole = self.tools.held_out
        names, first = np.unique(whole.group, return_index=True)
        few = whole.take(np.flatnonzero(np.isin(whole.group, names[np.argsort(first)[:_HELD_OUT_FEW]])))
        self.tools.held_out = few
        try:
            seconds = timing.measuring_once(measure, prompts, loaded=self._loaded)(1)
        finally:
            self.tools.held_out = whole
        return Line(seconds * len(whole) / max(1, len(few)), 0.0)

    def _another(self, name: str, samples: Samples, key: int) -> Trainable:
        """As untrained as the model itself; what its training would take is counted."""
        model, spec = self.tools.model(name), self.recipe.models[name].fit
        if spec is not None and not self.recipe.models[name].ready:
            examples = model.encode(samples)
            timed = Timed(examples, FixedFeed(examples, spec.batch_size, 0), len(samples))
            steps = spec.steps or (spec.epochs or 0) * timed.feed.steps_per_epoch
            self._fits += steps * self._step_seconds(model, spec, timed)
        return model

    def _fits_of(self, measure: Callable[[int], object], prompts: int) -> float:
        """Seconds of all that a metric trains, in each evaluation."""
        if not self._fits:
            return 0.0
        self._fits = 0.0
        measure(prompts)
        seconds, self._fits = self._fits, 0.0
        return seconds

    def scoring(self, sampled: SamplingTime, wanted: int, judge: str = "") -> Line:
        """Seconds to score the candidates of n prompts, as :meth:`rewards` does."""
        if not (self.parts.judges[judge] if judge else self.parts.scorers):
            return Line(0.0, 0.0)
        return self._measuring_line(lambda count: self.rewards(sampled.first(count), judge), sampled, wanted)

    def _measuring_line(self, measure: Callable[[int], object], sampled: SamplingTime, wanted: int) -> Line:
        return timing.measuring_line(measure, sampled.prompts, wanted, loaded=self._loaded)

    def _loaded(self) -> object:
        """What is embedded stays embedded, within a run; and what was timed is known."""
        return len(self.tools.cache), len(self._steps)

