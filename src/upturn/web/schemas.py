"""What programs send (JSON) and what forms send, both as the answer that the ballot box takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from upturn.annotation.db.record import LONGEST_TEXT, picked
from upturn.annotation.db.validation import STRENGTHS, Action, Answer, Showing


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


class VoteForm(BaseModel):
    """The page's form: buttons, radio buttons and selects, so that it works without a script."""

    csrf: str = ""
    id: OwnId
    showing: Name
    action: Action = "said"
    pick: Annotated[int, Field(ge=1, le=8)] | None = None
    side: Literal["", "a3", "a2", "a1", "same", "b1", "b2", "b3"] = ""
    seconds: Number | None = None
    text: Text = ""
    mode: Annotated[str, Field(max_length=8)] = ""
    rank0: Rank = 0
    rank1: Rank = 0
    rank2: Rank = 0
    rank3: Rank = 0
    rank4: Rank = 0
    rank5: Rank = 0
    rank6: Rank = 0
    rank7: Rank = 0
    score0: Number | None = None
    score1: Number | None = None
    score2: Number | None = None
    score3: Number | None = None
    score4: Number | None = None
    score5: Number | None = None
    score6: Number | None = None
    score7: Number | None = None

    @property
    def ranks(self) -> list[int]:
        return [self.rank0, self.rank1, self.rank2, self.rank3, self.rank4, self.rank5, self.rank6, self.rank7]

    @property
    def scores(self) -> list[float | None]:
        return [self.score0, self.score1, self.score2, self.score3, self.score4, self.score5, self.score6, self.score7]


def client_of(request: Request) -> str:
    """Which program sent it, in characters that can be seen."""
    said = request.headers.get("user-agent", "")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in said)[:120]


def from_json(vote: VoteIn, person: str, client: str) -> Answer:
    ranks = vote.ranks or ()
    scores = {name: (value,) for name, value in (vote.scores or {}).items()}
    return Answer(
        vote.id, person, vote.showing, vote.action, tuple(ranks), scores, vote.strength, vote.text, vote.seconds,
        client, vote.pick,
    )


def from_form(form: VoteForm, person: str, client: str, showing: Showing) -> Answer:
    """Refused where the form does not say what its mode asks."""
    count = len(showing.shown)
    ranks: Sequence[int] = ()
    scores: dict[str, tuple[float, ...]] = {}
    strength: float | None = None
    text = ""
    if form.action == "edit":
        text = form.text.replace("\r\n", "\n")
    elif form.action == "said":
        if showing.mode == "pick":
            ranks = picked(form.pick or 0, count)  # 0 is refused
        elif showing.mode == "compare":
            ranks, strength = compared(form.side)
        elif showing.mode == "rank":
            ranks = dense(form.ranks[:count])
        elif showing.mode == "rate":
            given = dict(zip(showing.attributes, form.scores, strict=False))
            scores = {name: (value,) for name, value in given.items() if value is not None}
    return Answer(
        form.id, person, form.showing, form.action, tuple(ranks), scores, strength, text, form.seconds, client
    )


def compared(side: str) -> tuple[list[int], float | None]:
    """``a3``: the first is much better; ``b1``: the second slightly; ``same``: about the same."""
    if side == "same":
        return [1, 1], 0.0
    if not side:
        return [], None
    return ([1, 2] if side[0] == "a" else [2, 1]), STRENGTHS[3 - int(side[1])]


def dense(ranks: Sequence[int]) -> list[int]:
    """Without gaps: after two that are tied for the first place comes the second."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return [places[rank] for rank in ranks]
