"""People say what they think of a round's candidates; until they have, the run waits."""

from __future__ import annotations

from collections import Counter

from upturn.annotation.annotator_weights import warnings, who
from upturn.annotation.db.used_votes import VOTES, votes_of, write_votes
from upturn.annotation.poll import box_of, missing, publish, settled
from upturn.annotation.to_groups import corrected
from upturn.config.schema import People
from upturn.loop.stages.context import Done, Outcome, Waiting, Work
from upturn.store import parquet_tables
from upturn.types import Samples, Votes

EDITED = "edited"  # the unit within a round that holds what people wrote themselves


def vote(work: Work, unit: str) -> Outcome:
    """rounds/NNN/votes.parquet: exactly the votes that this round uses; later ones change nothing.

    The poll is opened where ``upturn serve`` finds it. Waiting until its quota is met.
    """
    if work.finished(unit, "vote"):
        return Done()
    people = _people(work)
    with box_of(work.run, people) as box:
        for why, count in publish(work.run, box, people, unit).items():
            work.watch.note(f"{unit}: not asked about: {count}, {why}")
        votes = settled(box, people, unit)
        if votes is None:
            return Waiting(missing(box, people, unit, work.run))
    with work.committing(unit, "vote") as out:
        write_votes(out.path / VOTES, votes)
        out.counts.update({"votes": len(votes), **_counted(votes)})
        out.info.update(who(votes, people))
        for warning in warnings(out.info, people):
            work.watch.note(f"{unit}: {warning}")
    return Done()


def edited(work: Work, unit: str) -> Outcome:
    """rounds/NNN/edited/samples.parquet: the texts that people corrected, each with the sample that it was."""
    into = f"{unit}/{EDITED}"
    if work.finished(into, "edit"):
        return Done()
    samples = parquet_tables.read_samples(work.run.unit(unit) / parquet_tables.SAMPLES)
    made = corrected(votes_used(work, unit), samples, _people(work))
    with work.committing(into, "edit") as out:
        if made is not None:
            parquet_tables.write_samples(out.path / parquet_tables.SAMPLES, made)
        out.counts["edited"] = 0 if made is None else len(made)
    return Done()


def edits_of(work: Work, unit: str) -> Samples | None:
    """What ``edited`` kept of a round; None where there is nothing."""
    path = work.run.unit(f"{unit}/{EDITED}") / parquet_tables.SAMPLES
    return parquet_tables.read_samples(path) if path.is_file() else None


def votes_used(work: Work, unit: str) -> Votes:
    """The votes that a round froze."""
    found = votes_of(work.run, [unit])
    assert found is not None, f"{unit} has no votes yet"
    return found


def _people(work: Work) -> People:
    rounds = work.parts.recipe.rounds
    assert rounds is not None and rounds.people is not None
    return rounds.people


def _counted(votes: Votes) -> dict[str, int]:
    """How many answers were of each kind: a choice, a tie, all bad, skipped, a corrected text."""
    return dict(Counter(str(action) for action in votes.action))
