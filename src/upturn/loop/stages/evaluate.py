"""A unit's policy measured on fixed prompts and noise, the same in every round, and its pictures for the grid."""

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
from upturn.loop.stages.context import Done, Outcome, Work, prompt_keys
from upturn.loop.tools import Toolbox
from upturn.protocols import Policy
from upturn.store import parquet_tables
from upturn.store.values import read_values, write_values
from upturn.types import Array, Measurement, Prompt, Samples


@dataclass(frozen=True)
class Shown:
    """``protocols.Evidence``."""

    samples: Samples
    rewards: Array
    tools: Toolbox
    seed: int
    settings: Any


def evaluate(work: Work, unit: str) -> Outcome:
    """metrics.json, values.parquet (a value a sample, for the gate), evaluation.parquet and grid.parquet."""
    if work.finished(unit, "evaluate"):
        return Done()
    policy = work.policy(unit)
    with work.committing(unit, "evaluate") as out, work.computing(out):
        measure(work, policy, work.parts.evaluators, out.path)
    return Done()


def measure(
    work: Work, policy: Policy, evaluators: Sequence[Evaluator], folder: Path, keep_samples: bool = True
) -> None:
    """All that is known of one model, into ``folder``; ``policy`` is also the one that ``work.tools`` know."""
    measured: dict[str, Measurement] = {}
    for evaluator in evaluators:
        samples = _evaluation_samples(work, policy, evaluator)
        _, rewards = work.scores(samples)
        if keep_samples:
            parquet_tables.write_samples(folder / evaluation_file(work, evaluator), samples)
        shown = Shown(samples, rewards, work.tools, work.key("measure", evaluator.name), evaluator.settings)
        for i, (metric_name, metric) in enumerate(evaluator.metrics.items()):
            work.watch.advance(i, len(evaluator.metrics), metric_name)
            measured[metric_name] = metric.measure(shown)
    (folder / "metrics.json").write_text(json.dumps(_readable(measured), indent=1))
    write_values(folder / "values.parquet", {n: m.values for n, m in measured.items()})
    parquet_tables.write_samples(folder / "grid.parquet", grid_samples(work, policy))


def evaluation_file(work: Work, evaluator: Evaluator) -> str:
    """The samples of an evaluation: the first has the plain name."""
    first = evaluator.name == work.parts.evaluators[0].name
    return "evaluation.parquet" if first else f"evaluation-{evaluator.name}.parquet"


def _evaluation_samples(work: Work, policy: Policy, evaluator: Evaluator) -> Samples:
    prompts = [prompt_for(policy, p) for p in _cycled(work.asked(evaluator), evaluator.prompts)]
    keys = prompt_keys(work.key("evaluate", evaluator.name), prompts, evaluator.candidates)
    return work.draw(policy, prompts, keys, evaluator.settings)


def _cycled(prompts: list[Prompt], count: int) -> list[Prompt]:
    return (prompts * -(-count // len(prompts)))[:count]


def grid_prompts(work: Work, policy: Policy) -> list[Prompt]:
    """Those that the recipe writes out, or different ones of the held-out part, from each class as many as can be.

    A model that is asked in words gets the text alone: a picture's noise depends on its words, on nothing else.
    """
    grid = work.parts.recipe.grid
    if grid.texts:
        return [_read(text, work, policy) for text in grid.texts]
    distinct: dict[str, Prompt] = {}
    for prompt in work.asked(work.parts.evaluators[0]):
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


def grid_samples(work: Work, policy: Policy) -> Samples:
    """The same prompts and noise whatever the round or checkpoint: the key has neither.

    Wordings of one prompt have the noise of the first: what changes along them is the wording.
    """
    recipe, base = work.parts.recipe, work.key("grid")
    prompts = grid_prompts(work, policy)
    keys = [prompt_keys(base, prompts, recipe.grid.per_prompt)]
    for wordings in recipe.grid.wordings:
        asked = [_read(text, work, policy) for text in wordings]
        own = prompt_keys(base, asked[:1], recipe.grid.per_prompt)
        keys.append(np.repeat(own, len(asked), axis=0))
        prompts = [*prompts, *asked]
    return work.draw(policy, prompts, np.concatenate(keys), work.parts.evaluators[0].settings)


def _read(text: str, work: Work, policy: Policy) -> Prompt:
    """A text as a prompt; of a class where the model is asked for classes and the text is the name of one."""
    classes = work.tools.classes
    if policy.kind == "image" and not reads_text(policy) and text in classes:
        return Prompt(text, classes.index(text))
    return Prompt(text)


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
