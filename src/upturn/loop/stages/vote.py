"""Collects annotators' votes on a round's candidates; the run waits until they are complete."""

from __future__ import annotations

from collections import Counter

from upturn.annotation.annotator_weights import warnings, who
from upturn.annotation.db.used_votes import VOTES, votes_of, write_votes
from upturn.annotation.poll import box_of, missing, publish, settled
from upturn.annotation.to_groups import corrected
from upturn.config.schema import People
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome, Waiting
from upturn.store import parquet_tables
from upturn.store.units import within
from upturn.types import Samples, Votes

EDITED = "edited"  # the unit within a round that holds the texts that annotators edited


def vote(context: RunContext, unit: str) -> Outcome:
    """rounds/NNN/votes.parquet: exactly the votes that this round uses; later ones change nothing.

    The poll is opened where ``upturn serve`` finds it. Waiting until its quota is met.
    """
    if context.finished(unit, "vote"):
        return Done()
    people = _people(context)
    with box_of(context.run, people) as box:
        for why, count in publish(context.run, box, people, unit).items():
            context.observer.note(f"{unit}: left out of the poll: {count}, {why}")
        votes = settled(box, people, unit)
        if votes is None:
            return Waiting(missing(box, people, unit, context.run))
    with context.committing(unit, "vote") as out:
        write_votes(out.path / VOTES, votes)
        out.counts.update({"votes": len(votes), **_counted(votes)})
        out.info.update(who(votes, people))
        for warning in warnings(out.info, people):
            context.observer.note(f"{unit}: {warning}")
    return Done()


def edited(context: RunContext, unit: str) -> Outcome:
    """rounds/NNN/edited/samples.parquet: the texts that annotators corrected, each with its original sample."""
    into = within(unit, EDITED)
    if context.finished(into, "edit"):
        return Done()
    samples = parquet_tables.read_samples(context.run.unit(unit) / parquet_tables.SAMPLES)
    edits = corrected(votes_used(context, unit), samples, _people(context))
    with context.committing(into, "edit") as out:
        if edits is not None:
            parquet_tables.write_samples(out.path / parquet_tables.SAMPLES, edits)
        out.counts["edited"] = 0 if edits is None else len(edits)
    return Done()


def edits_of(context: RunContext, unit: str) -> Samples | None:
    """What ``edited`` kept of a round; None where there is nothing."""
    path = context.run.unit(within(unit, EDITED)) / parquet_tables.SAMPLES
    return parquet_tables.read_samples(path) if path.is_file() else None


def votes_used(context: RunContext, unit: str) -> Votes:
    """The votes that a round froze."""
    found = votes_of(context.run, [unit])
    assert found is not None, f"{unit} has no votes yet"
    return found


def _people(context: RunContext) -> People:
    rounds = context.parts.recipe.rounds
    assert rounds is not None and rounds.people is not None
    return rounds.people


def _counted(votes: Votes) -> dict[str, int]:
    """How many answers were of each kind: a choice, a tie, all bad, skipped, a corrected text."""
    return dict(Counter(str(action) for action in votes.action))
