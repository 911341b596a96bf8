"""What the API (JSON) and the page's forms send, as the answer that the database takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from upturn.annotation.db.validation import LONGEST_TEXT, Action, Answer, Assignment
from upturn.annotation.vote_mode import Choice, mode_named


def _storable(text: str) -> str:
    """NUL is no character to a database, half a surrogate pair none to UTF-8."""
    if "\x00" in text:
        raise ValueError("has a character that cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has a character that cannot be stored") from None
    return text


Words = Annotated[str, AfterValidator(_storable)]
OwnId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="Made by the client: twice counts once.")]
Name = Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]
ModeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:]{0,200}$", description="A vote mode by name.")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
Rank = Annotated[int, Field(ge=0, le=8)]
Text = Annotated[Words, Field(max_length=LONGEST_TEXT)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VoteIn(Strict):
    """An answer. ``pick`` names a position from 1; ``ranks`` stand by position, 1 is best, equal is a tie, 0 unsaid."""

    id: OwnId
    showing: Name
    action: Action = "said"
    pick: Annotated[int, Field(ge=1, le=8)] | None = None
    ranks: Annotated[list[Rank], Field(max_length=8)] | None = None
    scores: Annotated[dict[str, Number], Field(max_length=8)] | None = None
    strength: Number | None = None
    text: Text = ""
    seconds: Number | None = None


class VoteBody(BaseModel):
    """The page's form: buttons, radio buttons and selects, so that it works without a script.

    Fields that are not named here belong to the vote mode, which reads them from ``fields``.
    """

    model_config = ConfigDict(extra="allow")

    csrf: str = ""
    id: OwnId
    showing: Name
    action: Action = "said"
    seconds: Number | None = None
    text: Text = ""
    mode: ModeName = ""

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the vote mode, as they were sent."""
        return {name: str(value) for name, value in (self.model_extra or {}).items()}


def client_of(request: Request) -> str:
    """Which program sent it, in characters that can be seen."""
    agent = request.headers.get("user-agent", "")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in agent)[:120]


def from_json(vote: VoteIn, person: str, client: str) -> Answer:
    ranks = vote.ranks or ()
    scores = {name: (value,) for name, value in (vote.scores or {}).items()}
    return Answer(
        vote.id, person, vote.showing, vote.action, tuple(ranks), scores, vote.strength, vote.text, vote.seconds,
        client, vote.pick,
    )


def from_form(form: VoteBody, person: str, client: str, showing: Assignment) -> Answer:
    """Refused where the fields do not answer what the mode asks."""
    choice = Choice()
    if form.action == "said":
        choice = mode_named(showing.mode).from_form(form.fields, len(showing.shown), showing.attributes)
    text = form.text.replace("\r\n", "\n") if form.action == "edit" else ""
    return Answer(
        form.id, person, form.showing, form.action, choice.ranks, choice.scores, choice.strength, text, form.seconds,
        client,
    )
