"""A round's poll: opens it, closes it once its quota is met, and describes its progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from upturn.annotation.content import ContentStore
from upturn.annotation.db.ballots import BallotBox, open_box
from upturn.annotation.db.validation import OVERALL
from upturn.annotation.tasks import Question, tasks_of
from upturn.config.recipe import Recipe
from upturn.config.schema import People
from upturn.errors import UserError
from upturn.store.run import Run
from upturn.types import Votes


@contextmanager
def box_of(run: Run, people: People) -> Iterator[BallotBox]:
    """The ballot box that the recipe names. UserError where what it needs is not installed, or it does not answer."""
    try:
        box = open_box(run, people.database)
    except ImportError as error:
        raise UserError(f"votes need {error.name}, which is not installed", where="rounds.people",
                        fix="pip install upturn[people]") from error
    with box:
        yield box


def publish(run: Run, box: BallotBox, people: People, unit: str) -> Counter[str]:
    """Open the poll of a round unless it is open already; what is left out, by reason.

    UserError where there is nothing to ask.
    """
    if any(poll.unit == unit and poll.mode == people.mode for poll in box.polls()):
        return Counter()
    question = Question(
        people.mode, (), people.candidates, people.overlap, people.quota, people.attributes or (OVERALL,),
        repeats=people.repeats, prompts=people.prompts, unit=unit,
    )
    contents = ContentStore(run)
    try:
        asked = tasks_of(run, contents, question)
    finally:
        contents.close()
    box.open_poll(
        unit, people.mode, asked.tasks, overlap=people.overlap, quota=people.quota, attributes=question.attributes,
        repeats=people.repeats,
    )
    return asked.left_out


def settled(box: BallotBox, people: People, unit: str) -> Votes | None:
    """The votes that a round uses, from the moment on at which its quota is met; None before.

    What is said later, or taken back later, is not among them: asked again after a crash they are the same.
    """
    until = box.settle(unit, people.mode)
    return None if until is None else box.votes([unit], [people.mode], until=until)


def missing(box: BallotBox, people: People, unit: str, run: Run) -> str:
    """How many answers of how many are there, by whom, and where to give the others."""
    progress = box.progress([unit])
    own = tuple(one for one in progress.polls if one.poll.mode == people.mode)
    given, wanted = sum(min(one.given, one.wanted) for one in own), sum(one.wanted for one in own)
    stuck = sum(one.stuck for one in own)
    votes = box.votes([unit], [people.mode])
    names = {person.id: person.name for person in progress.people}
    by = Counter(names[str(name)] for name, action in zip(votes.person, votes.action, strict=True) if action != "skip")
    who = f" ({', '.join(f'{name} {count}' for name, count in by.most_common())})" if by else ""
    more = f"; {stuck} of the missing ones need more annotators" if stuck else ""
    return f"{given} of {wanted} answers ('{people.mode}' on {unit}) are there{who}{more}. " \
        f"To answer: upturn serve {run.folder} --continue"


def waiting_for(run: Run, recipe: Recipe) -> str | None:
    """What a waiting run misses as it is now; None where it does not wait for people."""
    people = recipe.rounds.people if recipe.rounds else None
    if people is None or run.state.state != "waiting":
        return None
    unit = unanswered(run)
    if unit is None:
        return None
    with box_of(run, people) as box:
        return missing(box, people, unit, run)


def unanswered(run: Run) -> str | None:
    """The round that has samples and no votes yet."""
    units = [unit for unit in run.round_units()
             if run.done(unit, "sample") is not None and run.done(unit, "vote") is None]
    return units[-1] if units else None


def answered(box: BallotBox, people: People, run: Run) -> str | None:
    """The round whose answers are all there, and not used yet."""
    unit = unanswered(run)
    if unit is None:
        return None
    own = [one for one in box.progress([unit]).polls if one.poll.mode == people.mode]
    return unit if own and not own[0].missing else None
