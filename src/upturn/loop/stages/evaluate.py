"""Measures a unit's policy on fixed prompts and noise, the same in every round, and draws the samples of the grid."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn.loop.assembly import Evaluator
from upturn.loop.checks.caption_strategy import prompt_for, reads_text
from upturn.loop.run_context import RunContext, prompt_keys
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.tools import Toolbox
from upturn.protocols import Policy
from upturn.store import parquet_tables
from upturn.store.values import read_values, write_values
from upturn.types import Array, Measurement, Prompt, Samples


@dataclass(frozen=True)
class EvaluationEvidence:
    """What a metric receives; implements ``protocols.Evidence``."""

    samples: Samples
    rewards: Array
    tools: Toolbox
    seed: int
    settings: Any


def evaluate(context: RunContext, unit: str) -> Outcome:
    """metrics.json, values.parquet (a value per sample, for the gate), evaluation.parquet and grid.parquet."""
    if context.finished(unit, "evaluate"):
        return Done()
    policy = context.policy(unit)
    with context.committing(unit, "evaluate") as out, context.computing(out):
        measure(context, policy, context.parts.evaluators, out.path)
    return Done()


def measure(
    context: RunContext, policy: Policy, evaluators: Sequence[Evaluator], folder: Path, keep_samples: bool = True
) -> None:
    """Write every measurement of one model into ``folder``; ``policy`` is also the one that ``context.tools`` know."""
    measured: dict[str, Measurement] = {}
    for evaluator in evaluators:
        samples = _evaluation_samples(context, policy, evaluator)
        _, rewards = context.scores(samples)
        if keep_samples:
            parquet_tables.write_samples(folder / evaluation_file(context, evaluator), samples)
        key = context.key("measure", evaluator.name)
        evidence = EvaluationEvidence(samples, rewards, context.tools, key, evaluator.settings)
        for i, (metric_name, metric) in enumerate(evaluator.metrics.items()):
            context.observer.advance(i, len(evaluator.metrics), metric_name)
            measured[metric_name] = metric.measure(evidence)
    (folder / "metrics.json").write_text(json.dumps(_readable(measured), indent=1))
    write_values(folder / "values.parquet", {n: m.values for n, m in measured.items()})
    parquet_tables.write_samples(folder / "grid.parquet", grid_samples(context, policy))


def evaluation_file(context: RunContext, evaluator: Evaluator) -> str:
    """The samples of an evaluation: the first has the plain name."""
    first = evaluator.name == context.parts.evaluators[0].name
    return "evaluation.parquet" if first else f"evaluation-{evaluator.name}.parquet"


def _evaluation_samples(context: RunContext, policy: Policy, evaluator: Evaluator) -> Samples:
    prompts = [prompt_for(policy, p) for p in _cycled(context.evaluation_prompts(evaluator), evaluator.prompts)]
    keys = prompt_keys(context.key("evaluate", evaluator.name), prompts, evaluator.candidates)
    return context.draw(policy, prompts, keys, evaluator.settings)


def _cycled(prompts: list[Prompt], count: int) -> list[Prompt]:
    return (prompts * -(-count // len(prompts)))[:count]


def grid_prompts(context: RunContext, policy: Policy) -> list[Prompt]:
    """Those that the recipe writes out, or different ones of the held-out part, from each class as many as can be.

    A model that reads text gets the text only: the noise of an image depends on its text and on nothing else.
    """
    grid = context.parts.recipe.grid
    if grid.texts:
        return [_read(text, context, policy) for text in grid.texts]
    distinct: dict[str, Prompt] = {}
    for prompt in context.evaluation_prompts(context.parts.evaluators[0]):
        read = prompt_for(policy, prompt)
        distinct.setdefault(Prompt(read.text).id if reads_text(policy) else read.id, read)
    if len(distinct) == 1:
        ordered = [next(iter(distinct.values()))] * grid.prompts
    else:
        ordered = _by_turns(list(distinct.values()))[: grid.prompts]
    return [Prompt(prompt.text) for prompt in ordered] if reads_text(policy) else ordered


def _by_turns(prompts: list[Prompt]) -> list[Prompt]:
    """The first of each class in order of class, then the second of each, …"""
    seen: Counter[int] = Counter()
    places = []
    for prompt in prompts:
        label = -1 if prompt.label is None else prompt.label
        places.append((seen[label], label))
        seen[label] += 1
    return [prompts[i] for i in sorted(range(len(prompts)), key=lambda i: places[i])]


def grid_samples(context: RunContext, policy: Policy) -> Samples:
    """The same prompts and noise whatever the round or checkpoint: the key has neither.

    Wordings of one prompt have the noise of the first: what changes along them is the wording.
    """
    recipe, base = context.parts.recipe, context.key("grid")
    prompts = grid_prompts(context, policy)
    keys = [prompt_keys(base, prompts, recipe.grid.per_prompt)]
    for wordings in recipe.grid.wordings:
        worded = [_read(text, context, policy) for text in wordings]
        own = prompt_keys(base, worded[:1], recipe.grid.per_prompt)
        keys.append(np.repeat(own, len(worded), axis=0))
        prompts = [*prompts, *worded]
    return context.draw(policy, prompts, np.concatenate(keys), context.parts.evaluators[0].settings)


def _read(text: str, context: RunContext, policy: Policy) -> Prompt:
    """A text as a prompt; with a class where the model reads classes and the text is the name of one."""
    classes = context.tools.classes
    if policy.kind == "image" and not reads_text(policy) and text in classes:
        return Prompt(text, classes.index(text))
    return context.prompt_of(text)


def _readable(measured: dict[str, Measurement]) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) or math.isinf(value) else float(value)

    return {
        name: {
            "value": number(m.value), "low": number(m.low), "high": number(m.high), "n": m.n, "note": m.note,
            "details": dict(m.details),
        }
        for name, m in measured.items()
    }


def read_measured(folder: Path) -> dict[str, Measurement]:
    """What ``evaluate`` left in a unit."""
    rows = json.loads((folder / "metrics.json").read_text())
    values = read_values(folder / "values.parquet")

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {
        name: Measurement(
            number(row["value"]), number(row["low"]), number(row["high"]), row["n"], values.get(name), row["note"],
            row["details"],
        )
        for name, row in rows.items()
    }
