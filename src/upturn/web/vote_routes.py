"""The voting page, and the same by the API."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from upturn.annotation.db import vote_columns
from upturn.annotation.db.validation import Assigned, Refused
from upturn.annotation.vote_mode import mode_named
from upturn.export.vote_files import plain_rows
from upturn.web.dependencies import State, Voter, Writer, checked, slow_down
from upturn.web.page_images import drawn
from upturn.web.rendering import page
from upturn.web.schemas import ModeName, Name, OwnId, Strict, VoteBody, VoteIn, client_of, from_form, from_json
from upturn.web.server_state import ServerState
from upturn.web.sessions import Session
from upturn.web.views import plain, view

router = APIRouter()
NOTES = {
    "said": "Saved.", "tie": "Saved: a tie.", "bad": "Saved: all bad.", "skip": "Skipped.", "edit": "Saved your text.",
    "undo": "Undone. Answer it again.", "nothing": "There is nothing to undo.",
    "answered": "You have answered this task already.",
    "wrong": "This answer does not fit the task. Please answer again.",
}
Note = Literal["", "said", "tie", "bad", "skip", "edit", "undo", "nothing", "answered", "wrong"]
REACH = 6.0  # of the plane that points are drawn on


@router.get("/", response_class=HTMLResponse)
async def voting(state: State, session: Voter, mode: ModeName = "", note: Note = "") -> Response:
    """The next task, or the one that was open; a reload shows the same."""
    try:
        assigned = await state.assign(session.person.id, mode or None)
    except Refused as refusal:
        return page(state, "rest.html.j2", session, here="vote", why=refusal.code, words=refusal.what, note="")
    progress = await state.progress()
    modes = tuple(dict.fromkeys(one.poll.mode for one in progress.polls))
    shared: dict[str, Any] = {
        "modes": modes, "here": "vote", "mode": mode, "note": NOTES.get(note, ""), "progress": progress,
    }
    if assigned.showing is None:
        return page(state, "rest.html.j2", session, why=assigned.why, words="", **shared)
    seen = await view(state, assigned.showing)
    voting_mode = mode_named(seen.mode)
    form = voting_mode.form(len(seen.candidates), seen.attributes)
    return page(state, "vote.html.j2", session, view=seen, vote_mode=voting_mode, form=form, **shared)


@router.post("/vote")
async def vote(request: Request, state: State, session: Voter, form: Annotated[VoteBody, Form()]) -> Response:
    """A vote by the page's form; then the next task."""
    checked(session, form.csrf)
    slow_down(state, "votes", session.person.id)
    showing = await state.assignment(form.showing, session.person.id)
    if showing is None:
        raise HTTPException(404, "there is no such task")
    try:
        answer = from_form(form, session.person.id, client_of(request), showing)
        await state.write(state.box.recording(answer))
        state.answered()
    except Refused as refusal:
        if refusal.code not in ("answered", "wrong"):
            raise
        return _to_vote(form.mode, refusal.code)
    return _to_vote(form.mode, form.action)


@router.post("/undo")
async def undo(
    state: State, session: Voter, id: Annotated[OwnId, Form()], csrf: Annotated[str, Form(max_length=200)] = "",
    mode: Annotated[ModeName, Form()] = "",
) -> Response:
    checked(session, csrf)
    slow_down(state, "votes", session.person.id)
    undone, _ = await state.write(state.box.undoing(id, session.person.id))
    state.answered()
    return _to_vote("" if undone is not None else mode, "undo" if undone is not None else "nothing")


def _to_vote(mode: str, note: str) -> Response:
    return RedirectResponse(f"/?mode={mode}&note={note}" if mode else f"/?note={note}", 303)


@router.get("/pictures/{showing}/{position}", response_class=Response)
async def image(
    state: State, session: Voter, showing: Annotated[Name, Path()], position: Annotated[int, Path(ge=1, le=8)]
) -> Response:
    """An image of a task that is assigned to this annotator; 404 for any other."""
    found = await state.assignment(showing, session.person.id)
    if found is None or position > len(found.shown):
        raise HTTPException(404, "there is no such image")
    content = await state.content(found, position - 1)
    if content.kind not in ("image", "points"):
        raise HTTPException(404, "there is no such image")
    body = content.body if content.kind == "image" else drawn(content.body, REACH)
    return png_answer(body)


def png_answer(body: bytes) -> Response:
    return Response(body, media_type="image/png", headers={"cache-control": "private, max-age=3600, immutable"})


# for programs


class UndoIn(Strict):
    id: OwnId


@router.get("/api/task", tags=["programs"])
async def task(
    state: State, session: Voter, mode: ModeName = "",
    beside: Annotated[list[Name], Query(max_length=8, description="Showings that the program holds already.")] = [],
) -> JSONResponse:
    """The next task: the oldest open one that is not in ``beside``, else a new one; or ``why`` there is none."""
    return JSONResponse(await _task_json(state, await state.assign(session.person.id, mode or None, tuple(beside))))


@router.post("/api/votes", tags=["programs"])
async def send(
    request: Request, state: State, session: Writer, vote: VoteIn,
    following: Annotated[bool, Query(description="Whether to hand out the next task in the same answer.")] = True,
) -> JSONResponse:
    """Record a vote. The answer comes after the vote is on the disk; sent again it is the same vote."""
    slow_down(state, "votes", session.person.id)
    person = session.person.id
    record = state.box.recording(from_json(vote, person, client_of(request)))
    assign = state.box.assigning(person)
    if not following:
        recorded, assigned = await state.write(record), None
    else:
        recorded, assigned = await state.write(lambda db: (record(db), assign(db)))
    reply: dict[str, Any] = {"id": recorded.id, "action": recorded.action, "again": recorded.again}
    if assigned is not None:
        reply["next"] = await _task_json(state, assigned)
    return JSONResponse(reply)  # FastAPI need not validate it again


@router.post("/api/undo", tags=["programs"])
async def take_back(state: State, session: Writer, given: UndoIn) -> dict[str, Any]:
    """Take back the last vote that stands: it stays, another row says that it does not count."""
    slow_down(state, "votes", session.person.id)
    undone, showing = await state.write(state.box.undoing(given.id, session.person.id))
    return {"undone": undone is not None, "again": undone is not None and undone.again,
            "next": await _task_json(state, Assigned(showing, "" if showing else "done"))}


@router.get("/api/votes", tags=["programs"])
async def own_votes(
    state: State, session: Voter, most: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[dict[str, Any]]:
    """One's own votes that stand, the newest first; of others nobody but an admin sees any."""
    found = await state.read(partial(vote_columns.votes, person=session.person.id))
    return plain_rows(found)[::-1][:most]


@router.get("/api/progress", tags=["programs"])
async def how_far(state: State, session: Voter) -> dict[str, Any]:
    """What was asked, what is there, what is missing."""
    progress = await state.progress()
    return {
        "wanted": progress.wanted, "given": progress.given, "missing": progress.missing, "met": progress.met,
        "message": progress.message(), "mine": _mine(session, progress.people),
        "polls": [{"mode": one.poll.mode, "unit": one.poll.unit, "tasks": one.tasks, "overlap": one.poll.overlap,
                   "wanted": one.wanted, "given": one.given, "stuck": one.stuck} for one in progress.polls],
    }


def _mine(session: Session, people: Any) -> int:
    return next((person.given for person in people if person.id == session.person.id), 0)


async def _task_json(state: ServerState, assigned: Assigned) -> dict[str, Any]:
    if assigned.showing is None:
        return {"task": None, "why": assigned.why}
    return {"task": await plain(state, assigned.showing), "why": ""}


