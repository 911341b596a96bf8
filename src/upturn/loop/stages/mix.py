"""Exactly what a stage trains on: real samples, kept samples and those of earlier rounds, each with a weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from upturn.annotation.to_groups import groups_for
from upturn.config.schema import People, Stage, Turn
from upturn.data.groups import RANK, SCORE, STRENGTH, by_reward, preferred
from upturn.data.mixer import Mixer
from upturn.data.split import assert_no_leak
from upturn.loop.run_context import RunContext
from upturn.loop.stages.curate import kept_rows
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.stages.score import rewards_of
from upturn.loop.stages.score_words import with_words
from upturn.loop.stages.vote import EDITED, edits_of, votes_used
from upturn.loop.tools import where
from upturn.protocols import Objective
from upturn.store import parquet_tables
from upturn.store.commit import Draft
from upturn.store.promotion import SKIPPED
from upturn.store.units import DATA, round_unit
from upturn.types import REAL, Array, Groups, Mixture, Samples, concatenate


def mix_real(context: RunContext, unit: str, stage: Stage) -> Outcome:
    """A stage before the rounds: the real samples that it names, all of weight 1; of preferences, by likelihood, the
    chosen ones."""
    if context.finished(unit, "mix"):
        return Done()
    samples = where(context.tools.train, stage.where, f"stages.{stage.name}")
    samples, rejected = learned(context.parts.objective(stage), samples)
    if rejected:
        context.observer.note(f"{unit}: of {len(samples) + rejected:,} candidates {len(samples):,} are learned, those "
                              "that were chosen or are tied")
    with context.committing(unit, "mix") as out:
        out.counts.update({"rejected": rejected} if rejected else {})
        _write(context, out, Mixture(with_words(context, samples), np.ones(len(samples))), {})
    return Done()


def learned(objective: Objective, samples: Samples) -> tuple[Samples, int]:
    """What the objective learns of real samples, and how many rejected candidates likelihood leaves out."""
    if not objective.maximum_likelihood:
        return samples, 0
    chosen = samples.take(preferred(samples))
    return chosen, len(samples) - len(chosen)


def mix_round(context: RunContext, unit: str, number: int, turn: Turn) -> Outcome:
    """One training of a round, in ``unit``: by the recipe's policy and λ, or groups of this round's candidates.

    Rounds that the gate rejected still gave their samples.
    """
    if context.finished(unit, "mix"):
        return Done()
    rounds = context.parts.recipe.rounds
    assert rounds is not None
    objective = context.parts.objective(turn)
    if objective.example == "group" and rounds.people is not None:
        return _mix_votes(context, unit, round_unit(number), objective, rounds.people)
    if objective.example == "group":
        return _mix_groups(context, unit, round_unit(number), objective.candidates)
    earlier = [round_unit(n) for n in range(1, number + 1)]
    kept: list[Samples] = []
    units: dict[str, str] = {}
    for past in earlier:
        samples = parquet_tables.read_samples(context.run.unit(past) / "samples.parquet").take(kept_rows(context, past))
        units |= dict.fromkeys(samples.ids, past)
        written = edits_of(context, past)
        if written is not None:
            samples = concatenate([samples, written])
            units |= dict.fromkeys(written.ids, f"{past}/{EDITED}")
        kept.append(samples)
    if rounds.mix.lambda_ != 0 and len(kept[-1]) == 0:
        return _nothing(context, unit, "nothing was kept this round: every candidate was dropped, each with its reason")
    assert context.parts.mixing is not None
    mixer = Mixer(
        policy=context.parts.mixing, lambda_=rounds.mix.lambda_, weights=rounds.mix.weights, real=rounds.mix.real,
        size=rounds.mix.size, rounds=rounds.count, repeat=rounds.mix.repeat,
    )
    real, _ = learned(objective, where(context.tools.train, rounds.mix.where, "rounds.mix"))
    with context.committing(unit, "mix") as out:
        mixture = mixer.mix(real, kept, key=context.key("mix"), round=number)
        _write(context, out, Mixture(with_words(context, mixture.samples), mixture.weights), units)
    return Done()


def _mix_groups(context: RunContext, unit: str, origin: str, candidates: int | None) -> Outcome:
    """This round's candidates as groups: the preference of a row is in its fields rank, score and strength."""
    samples = parquet_tables.read_samples(context.run.unit(origin) / "samples.parquet")
    rewards = rewards_of(context, origin, samples)
    groups = by_reward(samples, rewards, candidates)
    telling = (groups.ranks > 0).any(axis=1) & (groups.ranks.max(axis=1) > 1)
    without = int((~telling).sum())
    if not telling.any():
        reason = f"none of {without:,} prompts has candidates of different reward: there are no preferences"
        return _nothing(context, unit, reason)
    if without:
        context.observer.note(f"{unit}: {without:,} of {len(telling):,} prompts do not train: the rewards of their "
                              "candidates are equal")
    with context.committing(unit, "mix") as out:
        marked = _marked(groups, np.flatnonzero(telling))
        _write(context, out, Mixture(marked, np.ones(len(marked))), dict.fromkeys(samples.ids, origin))
        out.counts.update(pairs=int(telling.sum()), prompts_without_a_pair=without)
    return Done()


def _mix_votes(context: RunContext, unit: str, origin: str, objective: Objective, people: People) -> Outcome:
    """The votes on this round's candidates: each vote a group, with the weight of its annotator."""
    samples = parquet_tables.read_samples(context.run.unit(origin) / "samples.parquet")
    preferences = groups_for(objective, votes_used(context, origin), samples, people)
    if not len(preferences.samples):
        reason = f"no vote prefers one candidate to another ({listed(preferences.counts)})"
        return _nothing(context, unit, reason)
    with context.committing(unit, "mix") as out:
        _write(context, out, Mixture(preferences.samples, preferences.weights), dict.fromkeys(samples.ids, origin))
        out.counts["pairs"] = len(np.unique(preferences.samples.group))
        out.info["votes"] = dict(preferences.counts)
    return Done()


def _nothing(context: RunContext, unit: str, reason: str) -> Outcome:
    """The step is done without a mixture: what follows in the round is skipped for this reason."""
    with context.committing(unit, "mix") as out:
        out.info[SKIPPED] = reason
    return Done()


def listed(counts: Mapping[str, int]) -> str:
    """``3 tie, 2 skipped``."""
    return ", ".join(f"{count} {why}" for why, count in counts.items()) or "none at all"


def _marked(groups: Groups, chosen: Array) -> Samples:
    """The candidates of the chosen groups, row after row, with what is known of each in its fields."""
    rows = groups.rows[chosen]
    there = rows >= 0
    samples = groups.samples.take(rows[there])
    fields = {
        RANK: groups.ranks[chosen][there], SCORE: groups.rewards[chosen][there],
        STRENGTH: np.broadcast_to(groups.strength[chosen][:, None], rows.shape)[there],
    }
    return samples.with_fields(**fields)


def _write(context: RunContext, out: Draft, mixture: Mixture, units: dict[str, str]) -> None:
    leak = assert_no_leak(mixture.samples, context.tools.held_out)
    if leak.note:
        context.observer.note(leak.note)
    places = [units.get(name, DATA) for name in mixture.samples.ids]
    parquet_tables.write_mixture(out.path / "mixture.parquet", mixture, places)
    real = mixture.samples.origin == REAL
    weight = float(mixture.weights.sum())
    out.counts.update(real=int(real.sum()), synthetic=int((~real).sum()), equal_to_held_out=leak.rows)
    out.info["real_fraction"] = float(mixture.weights[real].sum() / weight) if weight else 0.0
