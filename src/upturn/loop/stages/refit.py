"""Fits a reward model in each round, on candidates of the current policy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from upturn import seeds
from upturn.annotation.to_groups import groups_for
from upturn.data.groups import RANK, SCORE, STRENGTH, by_reward
from upturn.errors import RunError
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.stages.train import assessed, finish, fitted, skipped
from upturn.loop.stages.vote import votes_used
from upturn.store import parquet_tables
from upturn.store.promotion import SKIPPED
from upturn.store.units import round_unit, within
from upturn.types import Mixture, Samples, concatenate

if TYPE_CHECKING:
    from upturn.types import Array

_ASIDE = 10  # of the judged groups every tenth is not fitted on: what the model is worth is measured there


def judge(context: RunContext, unit: str, name: str, number: int) -> Outcome:
    """rounds/NNN/<name>/scores.parquet and mixture.parquet: what the judges say of some prompts' candidates.

    All candidates of ``prompts`` prompts of the round, which a key chooses; those of earlier rounds stay.
    """
    into = within(unit, name)
    if context.finished(into, "judge"):
        return Done()
    spec = context.parts.recipe.models[name].refit
    assert spec is not None
    samples = parquet_tables.read_samples(context.run.unit(unit) / parquet_tables.SAMPLES)
    if not spec.score:
        return _from_votes(context, unit, name, number, samples)
    groups = np.unique(samples.group)
    rng = seeds.generator(context.key("judge", name, number))
    chosen = rng.permutation(groups)[: spec.prompts]
    judged = samples.take(np.isin(samples.group, chosen))
    with context.committing(into, "judge") as out:
        found, rewards = context.judged(judged, context.parts.judges[name])
        if np.isnan(rewards).all():
            raise RunError("the judges score no candidate", where=into, fix="Look at the scorers and their fields.")
        parquet_tables.write_scores(out.path / parquet_tables.SCORES, judged, found)
        preferences, places = _with_earlier(context, name, number, _with_preferences(judged, rewards), unit)
        mixture = Mixture(preferences, np.ones(len(preferences)))
        parquet_tables.write_mixture(out.path / parquet_tables.MIXTURE, mixture, places)
        out.counts.update(judged=len(judged), groups=len(chosen))
        out.info["gold"] = float(np.nanmean(rewards))
    return Done()


def _from_votes(context: RunContext, unit: str, name: str, number: int, samples: Samples) -> Outcome:
    """The same from the round's votes: each a group, with ties for objectives that use them."""
    recipe, into = context.parts.recipe, within(unit, name)
    spec = recipe.models[name].refit
    assert spec is not None and recipe.rounds is not None and recipe.rounds.people is not None
    preferences = groups_for(context.parts.objective(spec), votes_used(context, unit), samples, recipe.rounds.people)
    if not len(preferences.samples):
        with context.committing(into, "judge") as out:
            out.info[SKIPPED] = "the votes prefer no candidate to another"
        return Done()
    with context.committing(into, "judge") as out:
        every, places = _with_earlier(context, name, number, preferences.samples, unit)
        parquet_tables.write_mixture(out.path / parquet_tables.MIXTURE, Mixture(every, np.ones(len(every))), places)
        out.counts.update(judged=len(preferences.samples), groups=len(np.unique(preferences.samples.group)))
        out.info["votes"] = dict(preferences.counts)
    return Done()


def _with_preferences(samples: Samples, rewards: Array) -> Samples:
    groups = by_reward(samples, rewards)
    there = groups.rows >= 0
    strength = np.broadcast_to(groups.strength[:, None], groups.rows.shape)[there]
    fields = {RANK: groups.ranks[there], SCORE: groups.rewards[there], STRENGTH: strength}
    return samples.take(groups.rows[there]).with_fields(**fields)


def _with_earlier(context: RunContext, name: str, number: int, new: Samples, unit: str) -> tuple[Samples, list[str]]:
    """What was judged in the round before, which holds all that came before it, then what is new; and where each is."""
    judged = (context.run.unit(within(round_unit(earlier), name)) for earlier in range(number - 1, 0, -1))
    paths = [path for place in judged if (path := place / parquet_tables.MIXTURE).is_file()]
    if not paths:
        return new, [unit] * len(new)
    path = paths[0]
    old = parquet_tables.read_mixture(context.run, path).samples
    return concatenate([old, new]), [*parquet_tables.places(path), *[unit] * len(new)]


def refit(context: RunContext, unit: str, name: str, incumbent: str) -> Outcome:
    """rounds/NNN/<name>/model: fitted on nine tenths of all that was ever judged, assessed on the rest."""
    into = within(unit, name)
    if context.finished(into, "fit"):
        context.forget(name)
        return Done()
    spec = context.parts.recipe.models[name].refit
    assert spec is not None
    judged = parquet_tables.read_mixture(context.run, context.run.unit(into) / parquet_tables.MIXTURE)
    apart = judged.samples.group % _ASIDE == _ASIDE - 1
    mixture = Mixture(judged.samples.take(~apart), judged.weights[~apart])
    held_out = judged.samples.take(apart)
    model = context.parts.model(name, context.model_folder(incumbent))
    model.build(mixture.samples, context.key("build", name))
    if context.follower:
        fitted(context, into, model, spec, mixture, held_out)
        context.wait_for(into, "fit")
        context.forget(name)
        return Done()
    with context.committing(into, "fit") as out:
        with context.computing(out):
            history = fitted(context, into, model, spec, mixture, held_out)
            if not history.learned_nothing:
                out.info.update(assessed(model, held_out, name, context.key("assess", name)))
        if history.learned_nothing:
            skipped(out, history)
        else:
            finish(context, out, into, model, history, parent=None)
    shutil.rmtree(context.progress(into), ignore_errors=True)
    context.forget(name)
    return Done()
