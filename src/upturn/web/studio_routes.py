"""The studio's pages: request samples of the model, download the good ones."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from upturn.annotation.content import Content
from upturn.annotation.db import studio
from upturn.annotation.db.studio import LONGEST_PROMPT
from upturn.annotation.db.studio import Request as StudioRequest
from upturn.annotation.db.validation import Refused
from upturn.web.dependencies import State, Voter, Writer, checked, slow_down
from upturn.web.page_images import drawn, enlarged
from upturn.web.rendering import page
from upturn.web.schemas import Name, OwnId, Strict, Words, client_of
from upturn.web.server_state import ServerState
from upturn.web.studio_worker import Studio
from upturn.web.views import candidate
from upturn.web.vote_routes import REACH, png_answer

router = APIRouter()
_Prompt = Annotated[Words, Field(max_length=LONGEST_PROMPT)]
_Place = Annotated[int, Path(ge=1, le=8)]


class PromptIn(Strict):
    prompt: _Prompt = ""


def _open(state: ServerState) -> Studio:
    if state.studio is None:
        raise HTTPException(404, "there is no studio here")
    return state.studio


@router.get("/studio", response_class=HTMLResponse)
async def workshop(state: State, session: Voter) -> Response:
    return await _page(state, session)


async def _page(state: ServerState, session: Voter, note: str = "", status: int = 200) -> Response:
    room = _open(state)
    requests = await state.read(partial(studio.requests_of, person=session.person.id))
    shown = [(one, await _candidates(state, one)) for one in requests]
    waits = any(one.place is not None for one in requests) or room.ready is None
    return page(
        state, "studio.html.j2", session, status=status, here="studio", ready=room.ready, trouble=room.trouble,
        requests=shown, waits=waits, note=note, longest=LONGEST_PROMPT,
    )


async def _candidates(state: ServerState, asked: StudioRequest) -> list[Any]:
    if asked.state != "done":
        return []
    found = await state.read(partial(studio.samples, name=asked.id, person=asked.person))
    return [
        candidate(Content(one.kind, one.body), one.position, one.sample, f"/studio/{asked.id}/{one.position + 1}", [],
                  state.style)
        for one in found
    ]


@router.post("/studio", response_class=HTMLResponse)
async def ask(
    state: State, session: Voter, prompt: Annotated[_Prompt, Form()] = "",
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    checked(session, csrf)
    try:
        await _queue_prompt(state, session, prompt)
    except Refused as refusal:
        return await _page(state, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 409)
    return RedirectResponse("/studio", 303)


async def _queue_prompt(state: ServerState, session: Voter, prompt: str) -> str:
    room = _open(state)
    slow_down(state, "studio", session.person.id)
    if session.person.paused:
        raise Refused("paused", "voting is paused for you; whoever asked you to vote can say why")
    name = await state.write(
        partial(studio.ask, person=session.person.id, prompt=prompt.strip(), now=state.box.clock())
    )
    room.wake()
    return name


@router.get("/studio/{name}/{position}", response_class=Response)
async def image(state: State, session: Voter, name: Annotated[Name, Path()], position: _Place) -> Response:
    _open(state)
    one = await state.read(partial(studio.studio_sample, name=name, position=position - 1, person=session.person.id))
    if one.kind not in ("image", "points"):
        raise HTTPException(404, "there is no such image")
    return png_answer(one.body if one.kind == "image" else drawn(one.body, REACH))


@router.post("/studio/{name}/{position}/{action}", response_class=Response)
async def take(
    request: Request, state: State, session: Voter, name: Annotated[Name, Path()], position: _Place,
    action: Literal["download", "upscale"], id: Annotated[OwnId, Form()],
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Download one, or download it enlarged: an implicit vote, kept apart from explicit ones."""
    _open(state)
    checked(session, csrf)
    slow_down(state, "studio", session.person.id)
    one = await state.read(partial(studio.studio_sample, name=name, position=position - 1, person=session.person.id))
    if action == "upscale" and one.kind != "image":
        raise HTTPException(422, "only images can be enlarged")
    await state.write(partial(
        studio.take, name=id, request_id=name, position=position - 1, action=action, person=session.person.id,
        client=client_of(request), now=state.box.clock(),
    ))
    kinds = {"image": ("image/png", "png"), "points": ("application/json", "json")}
    media, ending = kinds.get(one.kind, ("text/plain; charset=utf-8", "txt"))
    body = one.body
    if action == "upscale":
        from asyncio import to_thread

        body = await to_thread(enlarged, one.body)
    large = "-enlarged" if action == "upscale" else ""
    return Response(body, media_type=media, headers={
        "content-disposition": f'attachment; filename="{one.sample}{large}.{ending}"'
    })


# for programs


@router.post("/api/studio", tags=["programs"], status_code=202)
async def queue_prompt(state: State, session: Writer, given: PromptIn) -> dict[str, Any]:
    """Put a prompt into the queue."""
    return {"request": await _queue_prompt(state, session, given.prompt)}


@router.get("/api/studio/{name}", tags=["programs"])
async def request_state(state: State, session: Voter, name: Annotated[Name, Path()]) -> dict[str, Any]:
    """Its place in the queue (0: being made, 1: next), or what was made."""
    _open(state)
    one = await state.read(partial(studio.request, name=name, person=session.person.id))
    seen = await _candidates(state, one)
    return {
        "request": one.id, "prompt": one.prompt, "state": one.state, "place": one.place, "message": one.message,
        "candidates": [{name: getattr(c, name) for name in ("position", "sample", "kind", "picture", "text")}
                       for c in seen],
    }
