"""The values that the database of votes takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from upturn.errors import UserError

Action = Literal["said", "tie", "bad", "skip", "edit"]
Role = Literal["voter", "admin"]
Check = Literal["", "gold", "repeat"]
Why = Literal["", "quota", "done", "later", "held"]
LONGEST_TEXT = 100_000  # characters of a corrected text
OVERALL = "overall"  # the attribute of a rating without attributes


class Refused(UserError):
    """A refused request to the database of votes; ``code`` is the reason, for programs.

    unknown   no such annotator, assignment or request, or it is another's
    paused    the annotator is paused
    answered  this assignment was answered already, by another vote
    conflict  the id belongs to another vote
    wrong     the answer does not fit the task
    """

    def __init__(self, code: Literal["unknown", "paused", "answered", "conflict", "wrong"], what: str) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True)
class Person:
    """``id`` is the pseudonym that votes carry; ``given`` counts answers that stand, skips left out."""

    id: str
    name: str
    role: str
    team: str
    quota: int | None
    paused: bool
    epoch: int
    given: int


@dataclass(frozen=True)
class Task:
    """A task for annotators: a prompt and candidates, ``places`` the table within the run that holds each.

    ``prompt``: {"text": …} or {"turns": [{"role", "content"}, …]}; both may be absent. ``gold``: the one known best.
    """

    prompt: Mapping[str, Any]
    candidates: tuple[str, ...]
    places: tuple[str, ...]
    gold: str = ""


@dataclass(frozen=True)
class Poll:
    """Tasks of one mode over samples of one unit. ``quota``: answers in all, None is overlap × tasks.

    ``attributes`` are rated in the mode ``rate``. ``golds`` is the share of an annotator's tasks whose answer is known,
    ``repeats`` the share of tasks that they answered before.
    """

    id: str
    unit: str
    mode: str
    overlap: int
    quota: int | None
    active: bool
    given: int = 0
    attributes: tuple[str, ...] = (OVERALL,)
    golds: float = 0.0
    repeats: float = 0.0


@dataclass(frozen=True)
class Assignment:
    """A task assigned to an annotator, candidates in screen order; ``moment`` is the time of assignment."""

    id: str
    person: str
    task: str
    mode: str
    prompt: Mapping[str, Any]
    shown: tuple[str, ...]
    places: tuple[str, ...]
    attributes: tuple[str, ...]
    moment: float


@dataclass(frozen=True)
class Assigned:
    """An assignment, or why there is none.

    quota  the annotator has given all required answers
    done   the poll needs no answers that this annotator could give
    later  all missing answers are assigned to others; expired ones are assigned again
    held   the annotator has too many open assignments
    """

    showing: Assignment | None
    why: Why = ""


@dataclass(frozen=True)
class Answer:
    """An annotator's answer to a task; ``id`` is made by the client, so that it may send it twice.

    ``ranks`` are parallel to the displayed candidates (1 best, equal a tie, 0 unranked), as are ``scores``, by
    attribute; ``pick``, a position from 1, is short for the ranks of a single choice.
    ``seconds`` is the client's own count; never more than the server saw pass.
    """

    id: str
    person: str
    showing: str
    action: Action
    ranks: tuple[int, ...] = ()
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    strength: float | None = None
    text: str = ""
    seconds: float | None = None
    client: str = ""
    pick: int | None = None


@dataclass(frozen=True)
class Recorded:
    """A vote on disk; ``again`` where it had been recorded before."""

    id: str
    task: str
    action: str
    again: bool = False
