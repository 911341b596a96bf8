"""People, tokens, quotas, pauses, and the votes themselves: for admins alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Path
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from upturn.annotation.db import annotators, polls, vote_columns
from upturn.annotation.db.validation import Person, Refused, Role
from upturn.export.vote_files import plain_rows
from upturn.web.dependencies import Admin, AdminWriter, TheBooth, Voter, checked
from upturn.web.rendering import page
from upturn.web.schemas import Name, Strict, Words
from upturn.web.server_state import Booth
from upturn.web.sessions import Session

router = APIRouter()
_Said = Annotated[Words, Field(max_length=200)]
_Quota = Annotated[int, Field(ge=0, le=10_000_000)]
_FormQuota = Annotated[str, Form(pattern=r"^\s*\d{0,7}\s*$")]
_Csrf = Annotated[str, Form(max_length=200)]
_ONE = Annotated[Name, Path()]


class PersonIn(Strict):
    name: _Said
    role: Role = "voter"
    team: _Said = ""
    quota: _Quota | None = None


class PersonChange(Strict):
    role: Role | None = None
    team: _Said | None = None
    quota: _Quota | None = None
    paused: bool | None = None


class PollChange(Strict):
    overlap: Annotated[int, Field(ge=1, le=10_000)] | None = None
    quota: _Quota | None = None
    active: bool | None = None


@router.get("/progress", response_class=HTMLResponse)
async def progress(booth: TheBooth, session: Voter) -> Response:
    """How far it is, for everybody: people by number, one's own marked; names are for admins."""
    seen = await booth.progress(exact=True)
    votes = sum(person.given for person in seen.people)
    most = max((person.given for person in seen.people), default=0)
    modes = tuple(dict.fromkeys(one.poll.mode for one in seen.polls))
    return page(
        booth, "progress.html.j2", session, here="progress", progress=seen, votes=votes, most=most, modes=modes,
        agreement=await booth.agreement(), note="", mode="",
    )


@router.get("/admin", response_class=HTMLResponse)
async def admin(booth: TheBooth, session: Admin) -> Response:
    return await _page(booth, session)


async def _page(booth: Booth, session: Session, note: str = "", status: int = 200, **token: Any) -> Response:
    booth.forget()
    seen = await booth.progress()
    everything = await booth.read(polls.polls)
    shown = {"named": "", "token": ""} | token
    return page(
        booth, "admin.html.j2", session, status=status, here="admin", progress=seen, polls=everything, note=note,
        **shown,
    )


async def _act(booth: Booth, session: Session, act: Callable[[], Any]) -> Response:
    """Do it and show the page again; what is refused is said on it."""
    try:
        await act()
    except Refused as refusal:
        return await _page(booth, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 400)
    booth.forget()
    return RedirectResponse("/admin", 303)


@router.post("/admin/people", response_class=HTMLResponse)
async def add(
    booth: TheBooth, session: Admin, name: Annotated[_Said, Form()], team: Annotated[_Said, Form()] = "",
    role: Annotated[Role, Form()] = "voter", quota: _FormQuota = "", csrf: _Csrf = "",
) -> Response:
    """A new person: their link is shown on this one page, and nowhere again."""
    checked(session, csrf)
    try:
        person, token = await booth.write(
            partial(annotators.add, key=booth.box.key, name=name, role=role, team=team, quota=_quota(quota))
        )
    except Refused as refusal:
        return await _page(booth, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 400)
    return await _page(booth, session, named=person.name, token=token)


@router.post("/admin/people/{person}/token", response_class=HTMLResponse)
async def token(booth: TheBooth, session: Admin, person: _ONE, csrf: _Csrf = "") -> Response:
    checked(session, csrf)
    made = await booth.write(partial(annotators.renew_token, key=booth.box.key, person=person))
    found = await booth.read(partial(annotators.found, person=person))
    return await _page(booth, session, named=found.name, token=made)


@router.post("/admin/people/{person}", response_class=HTMLResponse)
async def change(
    booth: TheBooth, session: Admin, person: _ONE, role: Annotated[Role, Form()] = "voter",
    team: Annotated[_Said, Form()] = "", quota: _FormQuota = "", paused: Annotated[Literal["", "yes"], Form()] = "",
    csrf: _Csrf = "",
) -> Response:
    checked(session, csrf)
    what: dict[str, Any] = {"role": role, "team": team, "quota": _quota(quota), "paused": paused == "yes"}
    _not_oneself(session, person, what)
    return await _act(booth, session, lambda: booth.write(partial(annotators.change, person=person, **what)))


@router.post("/admin/polls/{poll}", response_class=HTMLResponse)
async def change_poll(
    booth: TheBooth, session: Admin, poll: _ONE, overlap: Annotated[int, Form(ge=1, le=10_000)] = 1,
    quota: _FormQuota = "", active: Annotated[Literal["", "yes"], Form()] = "", csrf: _Csrf = "",
) -> Response:
    checked(session, csrf)
    what: dict[str, Any] = {"overlap": overlap, "quota": _quota(quota), "active": active == "yes"}
    return await _act(booth, session, lambda: booth.write(partial(polls.change_poll, poll=poll, **what)))


@router.get("/admin/votes.jsonl", response_class=Response)
async def export(booth: TheBooth, session: Admin, kind: Literal["explicit", "implicit"] = "explicit") -> Response:
    """Every vote that stands, as JSON lines; people by pseudonym."""
    found = await booth.read(vote_columns.votes if kind == "explicit" else vote_columns.implicit)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain_rows(found))
    name = "votes.jsonl" if kind == "explicit" else "implicit-votes.jsonl"
    return Response(
        text, media_type="application/x-ndjson", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _quota(text: str) -> int | None:
    return int(text) if text.strip() else None


def _not_oneself(session: Session, person: str, what: dict[str, Any]) -> None:
    """An admin who pauses themself, or stops being one, would lock the door from outside."""
    if person == session.person.id and (what.get("paused") or what.get("role") == "voter"):
        raise Refused("wrong", "another admin has to do this to you")


# for programs


@router.get("/api/people", tags=["admin"])
async def listed(booth: TheBooth, session: Admin) -> list[dict[str, Any]]:
    return [asdict(person) for person in await booth.read(annotators.people)]


@router.post("/api/people", tags=["admin"], status_code=201)
async def added(booth: TheBooth, session: AdminWriter, given: PersonIn) -> dict[str, Any]:
    """A new person, and the token that is told only here."""
    person, made = await booth.write(partial(annotators.add, key=booth.box.key, **given.model_dump()))
    booth.forget()
    return _told(person) | {"token": made}


@router.patch("/api/people/{person}", tags=["admin"])
async def changed(booth: TheBooth, session: AdminWriter, person: _ONE, given: PersonChange) -> dict[str, Any]:
    what = given.model_dump(exclude_unset=True)
    what = {name: value for name, value in what.items() if value is not None or name == "quota"}
    _not_oneself(session, person, what)
    found = await booth.write(partial(annotators.change, person=person, **what))
    booth.forget()
    return _told(found)


@router.post("/api/people/{person}/token", tags=["admin"])
async def renewed(booth: TheBooth, session: AdminWriter, person: _ONE) -> dict[str, Any]:
    """A new token; the old one, and every session begun with it, ends."""
    made = await booth.write(partial(annotators.renew_token, key=booth.box.key, person=person))
    booth.forget()
    return {"person": person, "token": made}


@router.patch("/api/polls/{poll}", tags=["admin"])
async def poll_changed(booth: TheBooth, session: AdminWriter, poll: _ONE, given: PollChange) -> dict[str, Any]:
    what = given.model_dump(exclude_unset=True)
    what = {name: value for name, value in what.items() if value is not None or name == "quota"}
    found = await booth.write(partial(polls.change_poll, poll=poll, **what))
    booth.forget()
    return asdict(found)


def _told(person: Person) -> dict[str, Any]:
    return asdict(person)
