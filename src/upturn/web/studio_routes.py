"""The studio's pages: ask the model for something, take what is good."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from upturn.annotation.content import Content
from upturn.annotation.db import studio
from upturn.annotation.db.studio import LONGEST_PROMPT
from upturn.annotation.db.studio import Request as Asked
from upturn.annotation.db.validation import Refused
from upturn.web.dependencies import TheBooth, Voter, Writer, checked, slow_down
from upturn.web.page_images import drawn, enlarged
from upturn.web.rendering import page
from upturn.web.schemas import Name, OwnId, Strict, Words, client_of
from upturn.web.server_state import Booth
from upturn.web.studio_worker import Studio
from upturn.web.views import candidate
from upturn.web.vote_routes import REACH, png_answer

router = APIRouter()
_Prompt = Annotated[Words, Field(max_length=LONGEST_PROMPT)]
_Place = Annotated[int, Path(ge=1, le=8)]


class PromptIn(Strict):
    prompt: _Prompt = ""


def _open(booth: Booth) -> Studio:
    if booth.studio is None:
        raise HTTPException(404, "there is no studio here")
    return booth.studio


@router.get("/studio", response_class=HTMLResponse)
async def workshop(booth: TheBooth, session: Voter) -> Response:
    return await _page(booth, session)


async def _page(booth: Booth, session: Voter, note: str = "", status: int = 200) -> Response:
    room = _open(booth)
    requests = await booth.read(partial(studio.requests_of, person=session.person.id))
    shown = [(one, await _candidates(booth, one)) for one in requests]
    waits = any(one.place is not None for one in requests) or room.ready is None
    return page(
        booth, "studio.html.j2", session, status=status, here="studio", ready=room.ready, trouble=room.trouble,
        requests=shown, waits=waits, note=note, longest=LONGEST_PROMPT,
    )


async def _candidates(booth: Booth, asked: Asked) -> list[Any]:
    if asked.state != "done":
        return []
    found = await booth.read(partial(studio.made, name=asked.id, person=asked.person))
    return [
        candidate(Content(one.kind, one.body), one.position, one.sample, f"/studio/{asked.id}/{one.position + 1}", [],
                  booth.style)
        for one in found
    ]


@router.post("/studio", response_class=HTMLResponse)
async def ask(
    booth: TheBooth, session: Voter, prompt: Annotated[_Prompt, Form()] = "",
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    checked(session, csrf)
    try:
        await _asked(booth, session, prompt)
    except Refused as refusal:
        return await _page(booth, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 409)
    return RedirectResponse("/studio", 303)


async def _asked(booth: Booth, session: Voter, prompt: str) -> str:
    room = _open(booth)
    slow_down(booth, "studio", session.person.id)
    if session.person.paused:
        raise Refused("paused", "voting is paused for you; whoever asked you to vote can say why")
    name = await booth.write(
        partial(studio.ask, person=session.person.id, prompt=prompt.strip(), now=booth.box.clock())
    )
    room.wake()
    return name


@router.get("/studio/{name}/{position}", response_class=Response)
async def picture(booth: TheBooth, session: Voter, name: Annotated[Name, Path()], position: _Place) -> Response:
    _open(booth)
    one = await booth.read(partial(studio.one_made, name=name, position=position - 1, person=session.person.id))
    if one.kind not in ("image", "points"):
        raise HTTPException(404, "there is no such picture")
    return png_answer(one.body if one.kind == "image" else drawn(one.body, REACH))


@router.post("/studio/{name}/{position}/{action}", response_class=Response)
async def take(
    request: Request, booth: TheBooth, session: Voter, name: Annotated[Name, Path()], position: _Place,
    action: Literal["download", "upscale"], id: Annotated[OwnId, Form()],
    csrf: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Download one, or download it enlarged: a vote that was not asked for, kept apart from those that were."""
    _open(booth)
    checked(session, csrf)
    slow_down(booth, "studio", session.person.id)
    one = await booth.read(partial(studio.one_made, name=name, position=position - 1, person=session.person.id))
    if action == "upscale" and one.kind != "image":
        raise HTTPException(422, "only pictures can be enlarged")
    await booth.write(partial(
        studio.take, name=id, request_id=name, position=position - 1, action=action, person=session.person.id,
        client=client_of(request), now=booth.box.clock(),
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
async def asked(booth: TheBooth, session: Writer, given: PromptIn) -> dict[str, Any]:
    """Put a prompt into the queue."""
    return {"request": await _asked(booth, session, given.prompt)}


@router.get("/api/studio/{name}", tags=["programs"])
async def state(booth: TheBooth, session: Voter, name: Annotated[Name, Path()]) -> dict[str, Any]:
    """Its place in the queue (0: being made, 1: next), or what was made."""
    _open(booth)
    one = await booth.read(partial(studio.request, name=name, person=session.person.id))
    seen = await _candidates(booth, one)
    return {
        "request": one.id, "prompt": one.prompt, "state": one.state, "place": one.place, "message": one.message,
        "candidates": [{name: getattr(c, name) for name in ("position", "sample", "kind", "picture", "text")}
                       for c in seen],
    }
