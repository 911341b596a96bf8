"""What a page or the API returns of an assignment: texts, turns, URLs of images; never a path of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from upturn.annotation.content import Content
from upturn.annotation.conversations import ConversationTurn, after, side
from upturn.annotation.db.validation import Assignment
from upturn.web.markup import Style, rendered
from upturn.web.page_images import crisp, size
from upturn.web.server_state import ServerState


@dataclass(frozen=True)
class Bubble:
    role: str
    side: str
    html: Markup


@dataclass(frozen=True)
class Candidate:
    """``position`` counts from 1, as the keys do; exactly one of picture, html and bubbles says what it is."""

    position: int
    sample: str
    kind: str
    picture: str = ""
    width: int = 0
    height: int = 0
    crisp: bool = False
    html: Markup = Markup("")  # noqa: RUF009 (it never changes)
    bubbles: tuple[Bubble, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class View:
    """A showing as a page shows it."""

    showing: str
    mode: str
    label: str
    html: Markup | None
    bubbles: tuple[Bubble, ...]
    candidates: tuple[Candidate, ...]
    attributes: tuple[str, ...]

    @property
    def pictures(self) -> bool:
        return any(one.picture for one in self.candidates)


def bubbles(turns: list[ConversationTurn], style: Style) -> tuple[Bubble, ...]:
    return tuple(Bubble(turn["role"], side(turn["role"]), rendered(turn["content"], style)) for turn in turns)


async def view(state: ServerState, showing: Assignment) -> View:
    """UserError where the run has lost what was to be shown."""
    prompt = showing.prompt
    turns: list[ConversationTurn] = list(prompt.get("turns") or [])
    found = []
    for place, sample in enumerate(showing.shown):
        content = await state.content(showing, place)
        found.append(candidate(content, place, sample, f"/pictures/{showing.id}/{place + 1}", turns, state.style))
    return View(
        showing.id, showing.mode, str(prompt.get("label") or ""),
        rendered(str(prompt["text"]), state.style) if prompt.get("text") else None, bubbles(turns, state.style),
        tuple(found), showing.attributes,
    )


def candidate(
    content: Content, place: int, sample: str, address: str, prompt: list[ConversationTurn], style: Style
) -> Candidate:
    """One of those shown; ``prompt`` turns that a whole conversation repeats are not shown twice."""
    position = place + 1
    if content.kind == "image":
        width, height = size(content.body)
        return Candidate(position, sample, content.kind, address, width, height, crisp(content.body))
    if content.kind == "points":
        return Candidate(position, sample, content.kind, address, 360, 360, text=content.text)
    if content.kind == "turns":
        turns = after(prompt, content.turns)
        return Candidate(
            position, sample, content.kind, bubbles=bubbles(turns, style), text=words(content, prompt)
        )
    if prompt:  # a reply in a conversation
        reply = bubbles([ConversationTurn(role="assistant", content=content.text)], style)
        return Candidate(position, sample, content.kind, bubbles=reply, text=content.text)
    return Candidate(position, sample, content.kind, html=rendered(content.text, style), text=content.text)


async def plain(state: ServerState, showing: Assignment) -> dict[str, Any]:
    """The same for a program: no HTML, texts as they are."""
    turns: list[ConversationTurn] = list(showing.prompt.get("turns") or [])
    found = []
    for place, sample in enumerate(showing.shown):
        content = await state.content(showing, place)
        picture = f"/pictures/{showing.id}/{place + 1}" if content.kind in ("image", "points") else ""
        found.append({
            "position": place + 1, "sample": sample, "kind": content.kind, "picture": picture,
            "text": words(content, turns),
        })
    return {
        "showing": showing.id, "mode": showing.mode, "prompt": dict(showing.prompt), "candidates": found,
        "attributes": list(showing.attributes),
    }


def words(content: Content, prompt: list[ConversationTurn]) -> str:
    """A candidate's text; of a conversation, the turns as lines "role: content"; "" of an image."""
    if content.kind == "image":
        return ""
    if content.kind == "turns":
        return "\n".join(f"{turn['role']}: {turn['content']}" for turn in after(prompt, content.turns))
    return content.text
