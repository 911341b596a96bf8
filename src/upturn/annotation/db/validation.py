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
OVERALL = "overall"  # the one attribute of a rating that names none


class Refused(UserError):
    """Something that was asked of the votes cannot be: ``code`` says which, for programs.

    unknown   no such person, showing or request, or it is another's
    paused    the person is not to answer now
    answered  this showing was answered already, by another vote
    conflict  the id stands for another vote
    wrong     the answer does not fit what was asked
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
    """What people are to answer: a prompt and candidates, ``places`` the table within the run that holds each.

    ``prompt``: {"text": …} or {"turns": [{"role", "content"}, …]}; both may be absent. ``gold``: the one known best.
    """

    prompt: Mapping[str, Any]
    candidates: tuple[str, ...]
    places: tuple[str, ...]
    gold: str = ""


@dataclass(frozen=True)
class Poll:
    """Tasks of one mode over samples of one unit. ``quota``: answers in all, None is overlap × tasks.

    ``attributes`` are what ``rate`` asks about. Of what a person is shown ``golds`` is the share of tasks whose answer
    is known, ``repeats`` of tasks that this person answered before.
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
    """One task before one person, candidates in the order of their screen; ``moment`` is when it was handed out."""

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
    """A showing, or why there is none.

    quota  the person has given all that was asked of them
    done   the poll needs nothing that this person could give
    later  other annotators are answering all that is missing; it returns if they do not answer
    held   the person has too many open already
    """

    showing: Assignment | None
    why: Why = ""


@dataclass(frozen=True)
class Answer:
    """An annotator's answer to a task; ``id`` is made by the client, so that it may send it twice.

    ``ranks`` stand beside the shown candidates (1 best, equal a tie, 0 unsaid), and so do ``scores``, by attribute;
    ``pick``, a position from 1, is short for the ranks that say it.
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
    """A vote that is on the disk; ``again`` where it had been there before."""

    id: str
    task: str
    action: str
    again: bool = False
