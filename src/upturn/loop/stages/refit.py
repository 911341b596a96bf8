"""A reward model that is fitted anew each round, on candidates of the policy as it is now."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from upturn import seeds
from upturn.annotation.to_groups import groups_for
from upturn.data.groups import RANK, SCORE, STRENGTH, by_reward
from upturn.errors import RunError
from upturn.loop.stages.context import Done, Outcome, Work, round_unit
from upturn.loop.stages.train import assessed, finish, fitted
from upturn.loop.stages.vote import votes_used
from upturn.store import parquet_tables
from upturn.types import Mixture, Samples, concatenate

if TYPE_CHECKING:
    from upturn.types import Array

_ASIDE = 10  # of the judged groups every tenth is not fitted on: what the model is worth is measured there


def judge(work: Work, unit: str, name: str, number: int) -> Outcome:
    """rounds/NNN/<name>/scores.parquet and mixture.parquet: what the judges say of some prompts' candidates.

    All candidates of ``prompts`` prompts of the round, which a key chooses; those of earlier rounds stay.
    """
    into = f"{unit}/{name}"
    if work.finished(into, "judge"):
        return Done()
    spec = work.parts.recipe.models[name].refit
    assert spec is not None
    samples = parquet_tables.read_samples(work.run.unit(unit) / parquet_tables.SAMPLES)
    if not spec.score:
        return _said(work, unit, name, number, samples)
    groups = np.unique(samples.group)
    rng = seeds.generator(work.key("judge", name, number))
    asked = rng.permutation(groups)[: spec.prompts]
    shown = samples.take(np.isin(samples.group, asked))
    with work.committing(into, "judge") as out:
        found, rewards = work.judged(shown, work.parts.judges[name])
        if np.isnan(rewards).all():
            raise RunError("the judges score no candidate", where=into, fix="Look at the scorers and their fields.")
        parquet_tables.write_scores(out.path / parquet_tables.SCORES, shown, found)
        said, places = _with_earlier(work, name, number, _told(shown, rewards), unit)
        parquet_tables.write_mixture(out.path / parquet_tables.MIXTURE, Mixture(said, np.ones(len(said))), places)
        out.counts.update(judged=len(shown), groups=len(asked))
        out.info["gold"] = float(np.nanmean(rewards))
    return Done()


def _said(work: Work, unit: str, name: str, number: int, samples: Samples) -> Outcome:
    """The same from the round's votes: each a group, ties told to objectives that know them."""
    recipe, into = work.parts.recipe, f"{unit}/{name}"
    spec = recipe.models[name].refit
    assert spec is not None and recipe.rounds is not None and recipe.rounds.people is not None
    said = groups_for(work.parts.objective(spec), votes_used(work, unit), samples, recipe.rounds.people)
    if not len(said.samples):
        raise RunError("people prefer none of the candidates to another", where=into, fix="Ask about more prompts.")
    with work.committing(into, "judge") as out:
        every, places = _with_earlier(work, name, number, said.samples, unit)
        parquet_tables.write_mixture(out.path / parquet_tables.MIXTURE, Mixture(every, np.ones(len(every))), places)
        out.counts.update(judged=len(said.samples), groups=len(np.unique(said.samples.group)))
        out.info["votes"] = dict(said.counts)
    return Done()


def _told(samples: Samples, rewards: Array) -> Samples:
    groups = by_reward(samples, rewards)
    there = groups.rows >= 0
    strength = np.broadcast_to(groups.strength[:, None], groups.rows.shape)[there]
    told = {RANK: groups.ranks[there], SCORE: groups.rewards[there], STRENGTH: strength}
    return samples.take(groups.rows[there]).with_fields(**told)


def _with_earlier(work: Work, name: str, number: int, new: Samples, unit: str) -> tuple[Samples, list[str]]:
    """What was judged in the round before, which holds all that came before it, then what is new; and where each is."""
    before = f"{round_unit(number - 1)}/{name}"
    if number == 1 or work.run.done(before, "judge") is None:
        return new, [unit] * len(new)
    path = work.run.unit(before) / parquet_tables.MIXTURE
    old = parquet_tables.read_mixture(work.run, path).samples
    return concatenate([old, new]), [*parquet_tables.places(path), *[unit] * len(new)]


def refit(work: Work, unit: str, name: str, incumbent: str) -> Outcome:
    """rounds/NNN/<name>/model: fitted on nine tenths of all that was ever judged, assessed on the rest."""
    into = f"{unit}/{name}"
    if work.finished(into, "fit"):
        work.forget(name)
        return Done()
    spec = work.parts.recipe.models[name].refit
    assert spec is not None
    judged = parquet_tables.read_mixture(work.run, work.run.unit(into) / parquet_tables.MIXTURE)
    apart = judged.samples.group % _ASIDE == _ASIDE - 1
    mixture = Mixture(judged.samples.take(~apart), judged.weights[~apart])
    held_out = judged.samples.take(apart)
    model = work.parts.model(name, work.model_folder(incumbent))
    model.build(mixture.samples, work.key("build", name))
    if work.follower:
        fitted(work, into, model, spec, mixture, held_out)
        work.wait_for(into, "fit")
        work.forget(name)
        return Done()
    with work.committing(into, "fit") as out:
        with work.computing(out):
            history = fitted(work, into, model, spec, mixture, held_out)
            out.info.update(assessed(model, held_out, name, work.key("assess", name)))
        finish(work, out, into, model, history, parent=None)
    shutil.rmtree(work.progress(into), ignore_errors=True)
    work.forget(name)
    return Done()
