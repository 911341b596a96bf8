"""Time, cost, disk and stability of a recipe, before anything is spent."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from upturn import calibrate, components, seeds
from upturn.assemble import Assembly, Evaluator, Toolbox, assemble, prompt_for, where
from upturn.calibrate import Line
from upturn.data.mixer import expected_real_fraction
from upturn.fingerprint import fingerprint
from upturn.protocols import ClosedForm, Policy, Trainable
from upturn.recipe import Recipe, Rounds, Training, to_yaml
from upturn.stages.evaluate import Shown
from upturn.stages.train import encode_examples
from upturn.store.files import plain
from upturn.theory import Verdict, verdict
from upturn.types import Batch, Mixture, Samples, Splits

_UNKNOWN_KEPT = 0.5  # share that a threshold is taken to keep: it depends on rewards that nobody has seen yet
_MEASURED = 256  # samples that metrics are timed on
_STEP_OVERHEAD = 0.03  # seconds a committed step takes on a local disk: files, fsync, record
_HELD_OUT_STEP = 1.0  # training steps that one held-out loss costs: up to 512 samples forward only


@dataclass(frozen=True)
class Row:
    """One step of one unit."""

    unit: str
    step: str
    samples: int  # made, trained on (an epoch), or measured
    optimiser_steps: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a recipe will do and cost on this machine, and where theory says it ends."""

    recipe: Recipe
    rows: tuple[Row, ...]
    real_fractions: tuple[float, ...]  # by round, from round 0
    disk_bytes: float
    theory: Verdict | None
    notes: tuple[str, ...]
    machine: dict[str, str] = field(default_factory=fingerprint)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    @property
    def usd(self) -> float:
        return self.seconds / 3600 * self.recipe.usd_per_hour

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.model_dump(mode="json", by_alias=True), "stages": [asdict(row) for row in self.rows],
            "seconds": self.seconds, "usd": self.usd, "disk_bytes": self.disk_bytes,
            "flops": sum(row.flops for row in self.rows), "real_fractions": list(self.real_fractions),
            "verdict": None if self.theory is None else plain(asdict(self.theory)), "notes": list(self.notes),
            "machine": self.machine,
        }

    def text(self) -> str:
        """For people."""
        lines = [to_yaml(self.recipe), f"{'unit':26}{'step':10}{'samples':>9}{'steps':>8}{'FLOP':>10}{'seconds':>9}"]
        lines += [
            f"{r.unit:26}{r.step:10}{r.samples:>9,}{r.optimiser_steps:>8,}{r.flops:>10.1e}{r.seconds:>9.1f}"
            for r in self.rows
        ]
        flops = sum(row.flops for row in self.rows)
        lines.append(f"{'in all':26}{'':27}{flops:>10.1e}{self.seconds:>9.1f}")
        lines.append("")
        lines.append(f"Time {_duration(self.seconds)} on this machine ({self.machine['processor']}), "
                     f"cost {self.usd:.2f} USD at {self.recipe.usd_per_hour:.2f} an hour, "
                     f"disk {self.disk_bytes / 1e6:.1f} MB.")
        if len(self.real_fractions) > 1:
            lines.append("Real fraction by round: " + ", ".join(f"{f:.0%}" for f in self.real_fractions))
        if self.theory is not None:
            lines += ["", f"Theory's word: {self.theory.word}."]
            for said in self.theory.statements:
                mark = {"ok": " ", "warn": "!", "danger": "!!"}[said.level]
                lines.append(f"{mark:3}{said.text}")
                lines.append(f"     assuming: {said.assumption}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def plan(recipe: Recipe) -> Plan:
    """Load the data, time a few steps of each kind, and add up. Nothing is written.

    Raises UserError for whatever ``upturn run`` would refuse.
    """
    parts = assemble(recipe)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    began = time.perf_counter()
    splits = parts.source.load()
    loading = time.perf_counter() - began
    return _Planner(parts, splits, loading).plan()


class _Planner:
    """Adds up the rows of one recipe."""

    def __init__(self, parts: Assembly, splits: Splits, loading: float) -> None:
        self.parts, self.recipe, self.splits = parts, parts.recipe, splits
        self.rows = [Row("data", "load", len(splits.train) + len(splits.held_out), 0, 0.0, 2 * loading)]
        self.notes: list[str] = list(splits.notes)
        self.fractions = [1.0]
        self.steps: dict[tuple[object, ...], float] = {}
        self.policy: Any = self._built("policy", splits.train)
        self.tools = Toolbox(
            splits.train, splits.held_out, splits.classes, parts.features,
            loader=lambda name: self._built(name, splits.train), models={"policy": self.policy},
        )

    def plan(self) -> Plan:
        for name, model in self.recipe.models.items():
            if model.fit is not None:
                own = self.splits.train if model.fit.split == "train" else self.splits.held_out
                chosen = where(own, model.fit.where, f"models.{name}.fit")
                self._train(f"models/{name}", "fit", self.tools.model(name), model.fit, chosen, len(chosen))
        measuring = [(e, self._measuring(e)) for e in self.parts.evaluators]
        for stage in self.recipe.stages:
            unit = f"rounds/000/{stage.name}"
            chosen = where(self.splits.train, stage.where, f"stages.{stage.name}")
            self._train(unit, "train", self.policy, stage, chosen, len(chosen))
            self._evaluate(unit, measuring)
        if self.recipe.rounds is not None:
            self._rounds(self.recipe.rounds, measuring)
        return Plan(
            self.recipe, tuple(self.rows), tuple(self.fractions), self._disk(), self._theory(), tuple(self.notes)
        )

    def _built(self, name: str, examples: Samples) -> Trainable:
        model = self.parts.model(name)
        model.build(examples, seeds.key("plan", name))
        model.id = f"plan-{name}"
        return model

    def _train(self, unit: str, step: str, model: Trainable, spec: Training, samples: Samples, rows: int) -> None:
        objective = self.parts.objective(spec)
        shown = samples.take(np.arange(min(len(samples), 4 * spec.batch_size)))
        examples = encode_examples(model, Mixture(shown, np.ones(len(shown))), objective)
        count = max(1, rows // examples.candidates)
        per_epoch = -(-count // spec.batch_size)
        steps = spec.steps or (spec.epochs or 0) * per_epoch
        if isinstance(model, ClosedForm):
            steps = 0
        each = self._step_seconds(model, spec, examples)
        held_out = steps / max(1, round(spec.held_out_every * per_epoch)) * _HELD_OUT_STEP * each
        flops = calibrate.flops_of(model, examples, spec.batch_size) * steps
        seconds = steps * each + held_out + 2 * _STEP_OVERHEAD
        self.rows.append(Row(unit, step, rows, steps, flops, seconds))
        if spec.patience:
            self.notes.append(f"{unit} may stop earlier than the {steps} steps counted here (patience)")

    def _step_seconds(self, model: Trainable, spec: Training, examples: Batch) -> float:
        """Timed once for all stages whose steps are alike: the schedule and the number of steps do not matter."""
        parts = (spec.objective["name"], spec.adapter["name"])
        alike = (model.id, *parts, spec.batch_size, spec.micro_batch, spec.ema > 0)
        if alike not in self.steps:
            self.steps[alike] = calibrate.step_seconds(self.parts, model, spec, examples)
        return self.steps[alike]

    def _measuring(self, evaluator: Evaluator) -> tuple[Line, Line]:
        """Seconds to sample n prompts of an evaluation, and to measure n samples."""
        prompts = [prompt_for(self.policy, p) for p in self.splits.held_out.prompts]
        sampling = calibrate.sampling_line(self.policy, prompts, evaluator.candidates, evaluator.settings)
        most = min(evaluator.prompts, max(16, _MEASURED // evaluator.candidates))
        keys = np.stack([seeds.fold(i, range(evaluator.candidates)) for i in range(most)])
        asked = [prompts[i % len(prompts)] for i in range(len(keys))]
        made = self.policy.sample(asked, keys, evaluator.settings)

        def measure(count: int) -> None:
            samples = made.take(np.arange(min(count * evaluator.candidates, len(made))))
            rewards = np.zeros(len(samples))
            for scorer, _ in self.parts.scorers.values():
                rewards = rewards + scorer.score(samples, self.tools).values
            shown = Shown(samples, rewards, self.tools, 0, evaluator.settings)
            for metric in evaluator.metrics.values():
                metric.measure(shown)

        return self._shorter(sampling, evaluator.settings), calibrate.measuring_line(measure, most)

    def _shorter(self, line: Line, settings: Any) -> Line:
        """An untrained text model never stops; a trained one about where the data does."""
        most = getattr(settings, "max_tokens", None)
        lengths = self.policy.encode(self.splits.train.take(np.arange(min(500, len(self.splits.train))))).lengths
        if most is None or lengths is None:
            return line
        share = min(1.0, float(torch.quantile(lengths.float(), 0.95)) / most)
        return Line(line.fixed * share, line.each * share)

    def _evaluate(self, unit: str, measuring: list[tuple[Evaluator, tuple[Line, Line]]]) -> None:
        seconds, flops, count = _STEP_OVERHEAD, 0.0, 0
        for evaluator, (sampling, measured) in measuring:
            made = evaluator.prompts * evaluator.candidates
            seconds += sampling(evaluator.prompts) + measured(evaluator.prompts)
            flops += made * self.policy.sampling_flops(evaluator.settings)
            count += made
        grid = self.recipe.grid.prompts * self.recipe.grid.per_prompt / max(1, measuring[0][0].candidates)
        seconds += measuring[0][1][0](grid)
        self.rows.append(Row(unit, "evaluate", count, 0, flops, seconds))

    def _rounds(self, rounds: Rounds, measuring: list[tuple[Evaluator, tuple[Line, Line]]]) -> None:
        policy: Policy = self.policy
        prompts = [prompt_for(policy, p) for p in self.splits.train.prompts]
        sampling = calibrate.sampling_line(policy, prompts, rounds.sample.candidates, self.parts.sampling)
        sampling = self._shorter(sampling, self.parts.sampling)
        made = rounds.sample.prompts * rounds.sample.candidates
        scoring = self._scoring(prompts, rounds)
        real = where(self.splits.train, rounds.mix.where, "rounds.mix")
        kept, flops = self._kept(rounds), made * policy.sampling_flops(self.parts.sampling)
        for number in range(1, rounds.count + 1):
            unit = f"rounds/{number:03d}"
            self.rows.append(Row(unit, "sample", made, 0, flops, sampling(rounds.sample.prompts) + _STEP_OVERHEAD))
            self.rows.append(Row(unit, "score", made, 0, 0.0, scoring(rounds.sample.prompts) + 2 * _STEP_OVERHEAD))
            sizes = [len(real), *[kept] * number]
            trained = self._rows_of(rounds, sizes, number)
            self.fractions.append(expected_real_fraction(rounds.mix.policy, rounds.mix.lambda_, number, sizes))
            if number == 1:
                self._train(unit, "train", self.policy, rounds.train, real, trained)
                per_row = self.rows[-1]
            else:
                self.rows.append(_scaled(per_row, unit, trained, rounds.train))
            self._evaluate(unit, measuring)

    def _scoring(self, prompts: list[Any], rounds: Rounds) -> Line:
        if not self.parts.scorers:
            return Line(0.0, 0.0)
        candidates, count = rounds.sample.candidates, 64
        keys = np.stack([seeds.fold(i, range(candidates)) for i in range(count)])
        asked = [prompts[i % len(prompts)] for i in range(count)]
        made = self.policy.sample(asked, keys, self.parts.sampling)

        def score(number: int) -> None:
            for scorer, _ in self.parts.scorers.values():
                scorer.score(made.take(np.arange(min(number * candidates, len(made)))), self.tools)

        return calibrate.measuring_line(score, count)

    def _kept(self, rounds: Rounds) -> int:
        """How many candidates a round is expected to keep."""
        count = float(rounds.sample.prompts * rounds.sample.candidates)
        for spec in rounds.curate:
            curator = components.make("curator", {k: v for k, v in spec.items() if k != "as"}, "rounds.curate")
            if spec["name"] in ("choice", "best_of_n"):
                count = min(count, rounds.sample.prompts * getattr(curator, "keep", 1))
            elif spec["name"] == "top_fraction":
                count *= curator.fraction
            elif spec["name"] == "threshold":
                count *= _UNKNOWN_KEPT
                self.notes.append(f"a threshold is taken to keep {_UNKNOWN_KEPT:.0%} of what it sees")
        return max(1, round(count))

    def _share_kept(self, rounds: Rounds) -> float | None:
        """What a curator that keeps a share of the candidates keeps; None for those that choose among them."""
        if not {c["name"] for c in rounds.curate} & {"threshold", "top_fraction"}:
            return None
        return self._kept(rounds) / (rounds.sample.prompts * rounds.sample.candidates)

    def _rows_of(self, rounds: Rounds, sizes: list[int], number: int) -> int:
        mix = rounds.mix
        if self.parts.objective(rounds.train).example == "group":
            return 2 * rounds.sample.prompts
        real = 0 if mix.lambda_ is not None and math.isinf(mix.lambda_) else mix.real or sizes[0]
        if mix.policy == "fresh" and mix.real is None:
            real = sizes[0] // (rounds.count + 1)
        synthetic = sum(sizes[1:]) if mix.policy.startswith("accumulate") else sizes[-1]
        if mix.policy == "accumulate_subsample":
            return min(mix.size or sizes[0], real + synthetic)
        return real + synthetic

    def _disk(self) -> float:
        weights = sum(p.numel() * p.element_size() for p in self.policy.module.parameters())
        helpers = sum(
            p.numel() * p.element_size()
            for name in self.recipe.models if name != "policy"
            for p in self.tools.model(name).module.parameters()
        )
        epochs = sum(len(s.checkpoint_epochs) for s in self.recipe.stages)
        rounds = self.recipe.rounds
        count = rounds.count if rounds else 0
        epochs += count * len(rounds.train.checkpoint_epochs) if rounds else 0
        made = sum(row.samples for row in self.rows if row.step in ("load", "sample", "evaluate"))
        per_sample = 200 + calibrate.storage_bytes(self.splits.train)  # ids, prompt, key: about 200 bytes a row
        return float(weights) * (len(self.recipe.stages) + count + epochs) + helpers + made * per_sample

    def _theory(self) -> Verdict | None:
        rounds = self.recipe.rounds
        if rounds is None or rounds.count == 0:
            return None
        reward_curators = [c["name"] for c in rounds.curate]
        settings = self.parts.sampling
        return verdict(
            rounds.mix.policy, synthetic=self._kept(rounds),
            real=len(where(self.splits.train, rounds.mix.where, "rounds.mix")), rounds=rounds.count,
            lam=rounds.mix.lambda_, curator=reward_curators[-1] if reward_curators else "",
            candidates=rounds.sample.candidates, kept=self._share_kept(rounds),
            temperature=float(getattr(settings, "temperature", 1.0) or 1.0),
            guidance=float(getattr(settings, "guidance", 1.0) or 1.0),
            modes=max(2, len(self.splits.classes) or 10), size=rounds.mix.size,
        )


def _scaled(row: Row, unit: str, trained: int, spec: Training) -> Row:
    """The first round's training for another number of rows."""
    if spec.steps is not None or row.samples == 0:
        return Row(unit, row.step, trained, row.optimiser_steps, row.flops, row.seconds)
    share = trained / row.samples
    return Row(unit, row.step, trained, round(row.optimiser_steps * share), row.flops * share, row.seconds * share)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
