"""Section: the recipe of the run in sentences, the data, and the whole recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.config.recipe import Recipe
from upturn.config.schema import People, Rounds, Training, Turn, named
from upturn.report.facts import DATA, Facts
from upturn.report.section import Section
from upturn.report.titles import listed, number, plural, share, visible

_MOST_FIELDS = 6  # of a component that are named in a sentence; the full recipe has all


@dataclass(frozen=True)
class RecipeSummary(Section):
    """The recipe in words, and in full."""

    title: ClassVar[str] = "Recipe"
    anchor: ClassVar[str] = "recipe"
    order: ClassVar[int] = 10

    def render(self, facts: Facts) -> Markup | None:
        return self.fill(
            rows=summary(facts), data=data_counts(facts), recipe=visible(facts.run.recipe_text),
            notes=[str(note) for note in facts.info(DATA, "load").get("notes", ())],
        )


def data_counts(facts: Facts) -> str:
    counts = facts.counts(DATA, "load")
    if not counts:
        return ""
    return (
        f"{plural(counts.get('train', 0), 'real sample')} for training, "
        f"{number(counts.get('held_out', 0), 0)} held out that no training uses."
    )


def summary(facts: Facts) -> list[tuple[str, str]]:
    """(term, sentence) for each part of the recipe."""
    recipe = facts.recipe
    rows = [("Data", component(recipe.data)), *_preparation(recipe)]
    for name, model in recipe.models.items():
        where = ""
        if model.ready:
            where = ", precomputed weights"
        elif model.fit is not None:
            part = "training" if model.fit.split == "train" else "held-out"
            where = f", fitted once on the {part} data{_where(model.fit.where)}"
        if model.refit is not None:
            prompts = plural(model.refit.prompts, "prompt") if model.refit.prompts else "every prompt"
            scorers = listed([component(s) for s in model.refit.score]) or "annotators"
            where = f", fitted again in each round on comparisons of the candidates of {prompts} by {scorers}"
        rows.append(("Model" if name == "policy" else f"Helper “{name}”", component(model.spec) + where))
    for stage in recipe.stages:
        rows.append((stage.name.capitalize(), f"On real data{_where(stage.where)}, {_training(stage)}."))
    if recipe.rounds is not None:
        rows.append(("Rounds", _rounds(facts, recipe.rounds)))
        rows.append(("Gate", _gate(recipe)))
    measured = "; ".join(
        f"{plural(e.prompts, 'prompt')}{_where(e.where)}{f' × {e.candidates}' if e.candidates > 1 else ''}: "
        f"{listed([str(m.get('as', m['name'])) for m in e.metrics])}" for e in recipe.evaluate
    )
    if not recipe.evaluate:
        return rows
    rows.append(("Evaluation", f"With the same prompts and noise for every model. {measured}."))
    return rows


def _preparation(recipe: Recipe) -> list[tuple[str, str]]:
    """Preparation of the real data: captions, the filter, score words."""
    rows = []
    if recipe.captions:
        rows.append(("Captions", listed([component(spec) for spec in recipe.captions])))
    if recipe.filter is not None:
        scorers = listed([component(spec) for spec in recipe.filter.score])
        curators = listed([component(spec) for spec in recipe.filter.curate])
        rows.append(("Filter", f"Curated by {curators}{f', scored by {scorers}' if scorers else ''}."))
    if recipe.score_words is not None:
        words = recipe.score_words
        steps = [f"“{word}” from {at:g} on" for at, word in sorted(words.levels.items())]
        steps += [f"“{word}” above {share(at)} of the training data" for at, word in sorted(words.shares.items())]
        ask = words.ask if words.ask is not None else max((words.levels or words.shares).items())[1]
        by = listed([component(spec) for spec in words.score])
        rows.append(("Score words", f"Added to each caption, by {by}: {listed(steps)}. Sampling uses “{ask}”."))
    return rows


def component(spec: Mapping[str, Any]) -> str:
    """``digits (degraded 0.5)``."""
    fields = [f"{name} {_value(value)}" for name, value in spec.items() if name != "name"]
    more = ", …" if len(fields) > _MOST_FIELDS else ""
    return f"{spec['name']} ({', '.join(fields[:_MOST_FIELDS])}{more})" if fields else str(spec["name"])


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(_value(v) for v in value[:_MOST_FIELDS]) + (" …" if len(value) > _MOST_FIELDS else "")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _where(where: Mapping[str, str]) -> str:
    return f" where {listed([f'{name} is {value}' for name, value in where.items()])}" if where else ""


def _training(spec: Training) -> str:
    length = plural(spec.epochs, "epoch") if spec.epochs else plural(spec.steps or 0, "step")
    usual = spec.adapter == Training.model_fields["adapter"].default  # its class is not asked: it would import torch
    adapter = "" if usual else f", {component(spec.adapter)} adapter"
    objective = component(spec.objective)
    rate = f"{spec.learning_rate:g}"
    return f"{length}, batches of {spec.batch_size}, learning rate {rate}, objective {objective}{adapter}"


def _rounds(facts: Facts, rounds: Rounds) -> str:
    if rounds.count == 0:
        return "None."
    drawn = rounds.sample or rounds.train[0].online
    assert drawn is not None
    each = f"{plural(drawn.prompts, 'prompt')} × {plural(drawn.candidates, 'candidate')}"
    parts = [f"{plural(rounds.count, 'round')}, each: {'sample' if rounds.sample else 'sample repeatedly'} {each}"]
    if rounds.people is not None:
        parts.append(_votes(facts, rounds.people))
    if rounds.score:
        parts.append(f"score by {listed([component(s) for s in rounds.score])}")
    if rounds.curate:
        parts.append(f"curate by {listed([component(c) for c in rounds.curate])}")
    start = "the kept model" if rounds.start == "incumbent" else "scratch"
    several = len(rounds.train) > 1
    trained = [
        f"{f'{turn.label} ' if several else ''}on {_training_data(facts, rounds, turn)}, {_training(turn)}"
        for turn in rounds.train
    ]
    parts.append(f"train from {start}{': ' if several else ' '}{'; then '.join(trained)}")
    return "; ".join(parts) + "."


def _votes(facts: Facts, people: People) -> str:
    """The vote of the recipe, the number of votes so far, and how many of them are simulated."""
    found = [facts.info(r.unit, "vote") for r in facts.status.rounds[1:]]
    votes = sum(one["votes"] for info in found for one in info.get("people", {}).values())
    simulated = sum(info.get("simulated", 0) for info in found)
    who = {name for info in found for name in info.get("people", {})}
    vote = f"collect votes ({people.mode}, {plural(people.overlap, 'annotator')} per task)"
    if not votes:
        return vote
    kind = "simulated " if simulated == votes else ""
    some = f", {simulated} of them simulated" if 0 < simulated < votes else ""
    return f"{vote}: {plural(votes, 'vote')} of {plural(len(who), f'{kind}annotator')}{some}"


def _training_data(facts: Facts, rounds: Rounds, turn: Turn) -> str:
    """The data of a training of a round: its own samples (online), groups of candidates, or the mixture.

    The records of rounds that have mixed tell groups from the mixture; before the first, both are stated.
    """
    if turn.online is not None:
        return "samples that the policy draws during training (no real data, no mixture)"
    last = turn is rounds.train[-1]
    units = (r.unit if last else f"{r.unit}/{turn.label}" for r in facts.status.rounds[1:])
    counts = next((facts.counts(unit, "mix") for unit in units if facts.counts(unit, "mix")), None)
    mixed = _mix(rounds)
    if counts is None:
        return f"the mixture if its objective learns from samples ({mixed}), on the round’s candidates if from groups"
    groups = counts.get("pairs")  # recorded of groups alone, of any size
    if groups is None:
        return f"the mixture ({mixed})"
    size = (counts.get("real", 0) + counts.get("synthetic", 0)) / groups
    what = "pairs" if size == 2 else "groups"
    return f"{what} of the round’s candidates, ordered by reward (no real data, no curation, no mixture)"


def _mix(rounds: Rounds) -> str:
    policy = str(named(rounds.mix.policy)["name"]).replace("_", " ")
    lam = rounds.mix.lambda_
    if lam is None:
        blend = "every sample has the same weight"
    elif math.isinf(lam):
        blend = "no real data"
    else:
        blend = f"λ = {lam:g}, so that {share(1 / (1 + lam))} of the weight is real"
    return f"{policy}: {blend}{_where(rounds.mix.where)}"


def _gate(recipe: Recipe) -> str:
    gate = recipe.gate
    if gate is None:
        return "None: every round is promoted."
    text = (
        f"A round is promoted only if {gate.metric} is better than that of the best model so far; the probability "
        f"that any round of the run is promoted by chance is at most {share(gate.alpha)}"
    )
    limits = []
    for name, limit in gate.guards.items():
        for kind, value in limit.items():
            limits.append({
                "at_least": f"{name} stays at least {value:g} times that of round 0",
                "at_most": f"{name} stays at most {value:g} times that of round 0",
                "floor": f"{name} is at least {value:g}", "ceiling": f"{name} is at most {value:g}",
            }.get(kind, f"{name}: {kind} {value:g}"))
    return f"{text}. Guards: {listed(limits)}." if limits else f"{text}."
