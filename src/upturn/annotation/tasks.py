"""Builds the tasks of a poll from a run's samples: candidates of one prompt, from one round or from several."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upturn.annotation.content import ContentStore, Entry
from upturn.annotation.db.validation import OVERALL, Task
from upturn.annotation.vote_mode import mode_named
from upturn.data.json_lines import records
from upturn.errors import UserError
from upturn.store.parquet_tables import EVALUATION, SAMPLES
from upturn.store.run import Run
from upturn.store.units import round_unit, unit_round
from upturn.types import content_id

MOST = 8  # candidates at a time: there are as many keys as fingers, and a screen
MOST_ATTRIBUTES = 8


@dataclass(frozen=True)
class Question:
    """What is asked of people about a run.

    mode        a vote mode by name, such as pick
    rounds      whose samples: one round's own, or the evaluations of several, the same prompts side by side;
                empty: the newest round that has samples
    candidates  at a time, of as many as a prompt has
    overlap     how many people answer each task;  quota  how many answers in all, None: overlap × tasks
    attributes  what a rating is about;  golds, repeats  shares of tasks with a known answer, and of those asked twice
    """

    mode: str = "pick"
    rounds: tuple[int, ...] = ()
    candidates: int = 4
    overlap: int = 1
    quota: int | None = None
    attributes: tuple[str, ...] = (OVERALL,)
    golds: float = 0.0
    repeats: float = 0.0
    prompts: int | None = None  # whose candidates are shown, chosen by a hash of what they are; None: all
    unit: str = ""  # instead of rounds: any unit with samples

    def __post_init__(self) -> None:
        mode_named(self.mode, "mode")
        if not 2 <= self.candidates <= MOST:
            raise UserError(f"{self.candidates} candidates at a time", where="candidates", fix=f"2 to {MOST}.")
        if not 1 <= len(self.attributes) <= MOST_ATTRIBUTES or len(set(self.attributes)) < len(self.attributes):
            raise UserError("attributes are different words", where="attributes", fix=f"1 to {MOST_ATTRIBUTES}.")


@dataclass
class PollTasks:
    """Tasks, the unit they are of, and what was left out and why: reason -> how many."""

    unit: str
    tasks: list[Task]
    left_out: Counter[str] = field(default_factory=Counter)


def tasks_of(run: Run, contents: ContentStore, question: Question, gold: Path | None = None) -> PollTasks:
    """The tasks that a question makes of a run's samples.

    Raises UserError where there are no samples, none that can be asked about, or a mode does not fit them.
    """
    unit, places = _places(run, question)
    every = [_groups(place, contents.place(place)) for place in places]
    asked = PollTasks(unit, [])
    groups = every[0] if len(every) == 1 else _side_by_side(every, asked)
    mode = mode_named(question.mode)
    if any(member.kind not in mode.content for _, _, member in groups[0][:1]):
        raise UserError(f"'{mode.name}' cannot ask about content of kind '{groups[0][0][2].kind}'", where="mode",
                        fix="Use another vote mode.")
    for group in _some(groups, question.prompts):
        _add(asked, group, question)
    if gold is not None:
        asked.tasks += _gold(gold, groups, question)
    if not asked.tasks:
        why = "; ".join(f"{reason}: {count}" for reason, count in asked.left_out.items())
        raise UserError(f"there is nothing to ask ({why})", where=unit, fix="Choose another round or mode.")
    return asked


Member = tuple[str, str, Entry]  # place, sample id, what is known of it


def _places(run: Run, question: Question) -> tuple[str, list[str]]:
    if question.unit:
        found = [f"{question.unit}/{name}" for name in (SAMPLES, EVALUATION)
                 if (run.unit(question.unit) / name).is_file()]
        if not found:
            raise UserError("this unit has no samples", where=question.unit, fix="Name a round that has been sampled.")
        return question.unit, found[:1]
    sampled = [unit for unit in run.round_units() if (run.unit(unit) / SAMPLES).is_file()]
    if not question.rounds:
        if not sampled:
            raise UserError("no round has samples yet", where=str(run.name), fix="Run it on, or name a --round.")
        return sampled[-1], [f"{sampled[-1]}/{SAMPLES}"]
    if len(question.rounds) == 1:
        unit = round_unit(question.rounds[0])
        for name in (SAMPLES, EVALUATION):
            if (run.unit(unit) / name).is_file():
                return unit, [f"{unit}/{name}"]
        known = [str(unit_round(unit)) for unit in sampled]
        raise UserError(f"round {question.rounds[0]} has no samples", where=str(run.name),
                        fix=f"Rounds with samples: {', '.join(known) or 'none'}.")
    units = [round_unit(number) for number in question.rounds]
    for number, unit in zip(question.rounds, units, strict=True):
        if not (run.unit(unit) / EVALUATION).is_file():
            raise UserError(f"round {number} was not evaluated", where=str(run.name), fix="Name rounds that were.")
    return " ".join(units), [f"{unit}/{EVALUATION}" for unit in units]


def _groups(place: str, entries: Mapping[str, Entry]) -> list[list[Member]]:
    """Candidates of one prompt, in the order of the table."""
    found: dict[int, list[Member]] = {}
    for name, entry in entries.items():
        found.setdefault(entry.group, []).append((place, name, entry))
    return [sorted(group, key=lambda member: member[2].candidate) for group in found.values()]


def _some(groups: Sequence[list[Member]], count: int | None) -> Sequence[list[Member]]:
    """As many as are asked about, in their order."""
    if count is None or count >= len(groups):
        return groups
    draw = [content_id("prompts asked about", *(name for _, name, _ in group)) for group in groups]
    chosen = sorted(range(len(groups)), key=draw.__getitem__)[:count]
    return [groups[place] for place in sorted(chosen)]


def _side_by_side(every: Sequence[list[list[Member]]], asked: PollTasks) -> list[list[Member]]:
    """The first candidate of each round for the same prompt: evaluations have the same prompts in the same order."""
    out = []
    for groups in zip(*every, strict=False):
        firsts = [group[0] for group in groups]
        if len({json.dumps(entry.prompt, sort_keys=True) for _, _, entry in firsts}) > 1:
            asked.left_out["the rounds were asked different prompts"] += 1
        else:
            out.append(firsts)
    return out


def _add(asked: PollTasks, group: list[Member], question: Question) -> None:
    mode = mode_named(question.mode)
    if not mode.compares:
        asked.tasks += [_task([member]) for member in group]
        return
    different = list({entry.digest: (place, name, entry) for place, name, entry in group}.values())
    if len(group) < 2:
        asked.left_out["prompts with a single candidate"] += 1
        return
    if len(different) < 2:
        asked.left_out["prompts whose candidates are all the same"] += 1
        return
    most = mode.candidates or question.candidates
    # keyed by what they are, so that asking again asks the same
    dice = random.Random(content_id("asked", *(name for _, name, _ in different)))
    chosen = different if len(different) <= most else dice.sample(different, most)
    asked.tasks.append(_task(chosen))


def _task(members: Sequence[Member], gold: str = "") -> Task:
    return Task(
        members[0][2].prompt, tuple(name for _, name, _ in members), tuple(place for place, _, _ in members), gold
    )


def _gold(path: Path, groups: Sequence[Sequence[Member]], question: Question) -> list[Task]:
    """Tasks with a known answer: JSON lines {"candidates": [sample ids], "right": one of them}."""
    if not mode_named(question.mode).compares:
        raise UserError(f"'{question.mode}' has no known answers", where=str(path),
                        fix="Use a mode with several candidates, such as pick.")
    members: dict[str, Member] = {member[1]: member for group in groups for member in group}
    out = []
    for number, row in records(path):
        where = f"{path}, line {number}"
        names: Any = row.get("candidates")
        right = row.get("right")
        if not isinstance(names, list) or right not in names:
            raise UserError("a gold task has candidates and which of them is right", where=where,
                            fix='Write {"candidates": ["id", "id"], "right": "id"}.')
        unknown = [name for name in names if name not in members]
        if unknown:
            raise UserError(f"there is no sample '{unknown[0]}' in what is asked about", where=where)
        out.append(_task([members[name] for name in names], str(right)))
    return out
