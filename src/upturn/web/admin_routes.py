"""Pages and API for admins: annotators, tokens, quotas, pauses, polls and votes."""

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
from upturn.web.dependencies import Admin, AdminWriter, State, Voter, checked
from upturn.web.rendering import page
from upturn.web.schemas import Name, Strict, Words
from upturn.web.server_state import ServerState
from upturn.web.sessions import Session

router = APIRouter()
_Text = Annotated[Words, Field(max_length=200)]
_Quota = Annotated[int, Field(ge=0, le=10_000_000)]
_FormQuota = Annotated[str, Form(pattern=r"^\s*\d{0,7}\s*$")]
_Csrf = Annotated[str, Form(max_length=200)]
_ONE = Annotated[Name, Path()]


class PersonIn(Strict):
    name: _Text
    role: Role = "voter"
    team: _Text = ""
    quota: _Quota | None = None


class PersonChange(Strict):
    role: Role | None = None
    team: _Text | None = None
    quota: _Quota | None = None
    paused: bool | None = None


class PollChange(Strict):
    overlap: Annotated[int, Field(ge=1, le=10_000)] | None = None
    quota: _Quota | None = None
    active: bool | None = None


@router.get("/progress", response_class=HTMLResponse)
async def progress(state: State, session: Voter) -> Response:
    """How far it is, for everybody: people by number, one's own marked; names are for admins."""
    seen = await state.progress(exact=True)
    votes = sum(person.given for person in seen.people)
    most = max((person.given for person in seen.people), default=0)
    modes = tuple(dict.fromkeys(one.poll.mode for one in seen.polls))
    return page(
        state, "progress.html.j2", session, here="progress", progress=seen, votes=votes, most=most, modes=modes,
        agreement=await state.agreement(), note="", mode="",
    )


@router.get("/admin", response_class=HTMLResponse)
async def admin(state: State, session: Admin) -> Response:
    return await _page(state, session)


async def _page(state: ServerState, session: Session, note: str = "", status: int = 200, **token: Any) -> Response:
    state.forget()
    seen = await state.progress()
    everything = await state.read(polls.polls)
    shown = {"named": "", "token": ""} | token
    return page(
        state, "admin.html.j2", session, status=status, here="admin", progress=seen, polls=everything, note=note,
        **shown,
    )


async def _act(state: ServerState, session: Session, act: Callable[[], Any]) -> Response:
    """Do it and show the page again; what is refused is said on it."""
    try:
        await act()
    except Refused as refusal:
        return await _page(state, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 400)
    state.forget()
    return RedirectResponse("/admin", 303)


@router.post("/admin/people", response_class=HTMLResponse)
async def add(
    state: State, session: Admin, name: Annotated[_Text, Form()], team: Annotated[_Text, Form()] = "",
    role: Annotated[Role, Form()] = "voter", quota: _FormQuota = "", csrf: _Csrf = "",
) -> Response:
    """A new person: their link is displayed on this page alone."""
    checked(session, csrf)
    try:
        person, token = await state.write(
            partial(annotators.add, key=state.box.key, name=name, role=role, team=team, quota=_quota(quota))
        )
    except Refused as refusal:
        return await _page(state, session, refusal.what[:1].upper() + refusal.what[1:] + ".", 400)
    return await _page(state, session, named=person.name, token=token)


@router.post("/admin/people/{person}/token", response_class=HTMLResponse)
async def token(state: State, session: Admin, person: _ONE, csrf: _Csrf = "") -> Response:
    checked(session, csrf)
    made = await state.write(partial(annotators.renew_token, key=state.box.key, person=person))
    found = await state.read(partial(annotators.found, person=person))
    return await _page(state, session, named=found.name, token=made)


@router.post("/admin/people/{person}", response_class=HTMLResponse)
async def change(
    state: State, session: Admin, person: _ONE, role: Annotated[Role, Form()] = "voter",
    team: Annotated[_Text, Form()] = "", quota: _FormQuota = "", paused: Annotated[Literal["", "yes"], Form()] = "",
    csrf: _Csrf = "",
) -> Response:
    checked(session, csrf)
    what: dict[str, Any] = {"role": role, "team": team, "quota": _quota(quota), "paused": paused == "yes"}
    _not_oneself(session, person, what)
    return await _act(state, session, lambda: state.write(partial(annotators.change, person=person, **what)))


@router.post("/admin/polls/{poll}", response_class=HTMLResponse)
async def change_poll(
    state: State, session: Admin, poll: _ONE, overlap: Annotated[int, Form(ge=1, le=10_000)] = 1,
    quota: _FormQuota = "", active: Annotated[Literal["", "yes"], Form()] = "", csrf: _Csrf = "",
) -> Response:
    checked(session, csrf)
    what: dict[str, Any] = {"overlap": overlap, "quota": _quota(quota), "active": active == "yes"}
    return await _act(state, session, lambda: state.write(partial(polls.change_poll, poll=poll, **what)))


@router.get("/admin/votes.jsonl", response_class=Response)
async def export(state: State, session: Admin, kind: Literal["explicit", "implicit"] = "explicit") -> Response:
    """Every vote that stands, as JSON lines; people by pseudonym."""
    found = await state.read(vote_columns.votes if kind == "explicit" else vote_columns.implicit)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain_rows(found))
    name = "votes.jsonl" if kind == "explicit" else "implicit-votes.jsonl"
    return Response(
        text, media_type="application/x-ndjson", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _quota(text: str) -> int | None:
    return int(text) if text.strip() else None


def _not_oneself(session: Session, person: str, what: dict[str, Any]) -> None:
    """An admin who pauses themself, or stops being one, could lock everybody out."""
    if person == session.person.id and (what.get("paused") or what.get("role") == "voter"):
        raise Refused("wrong", "another admin has to do this to you")


# for programs


@router.get("/api/people", tags=["admin"])
async def listed(state: State, session: Admin) -> list[dict[str, Any]]:
    return [asdict(person) for person in await state.read(annotators.people)]


@router.post("/api/people", tags=["admin"], status_code=201)
async def added(state: State, session: AdminWriter, given: PersonIn) -> dict[str, Any]:
    """A new person, and the token, which is returned only here."""
    person, made = await state.write(partial(annotators.add, key=state.box.key, **given.model_dump()))
    state.forget()
    return _person_json(person) | {"token": made}


@router.patch("/api/people/{person}", tags=["admin"])
async def changed(state: State, session: AdminWriter, person: _ONE, given: PersonChange) -> dict[str, Any]:
    what = given.model_dump(exclude_unset=True)
    what = {name: value for name, value in what.items() if value is not None or name == "quota"}
    _not_oneself(session, person, what)
    found = await state.write(partial(annotators.change, person=person, **what))
    state.forget()
    return _person_json(found)


@router.post("/api/people/{person}/token", tags=["admin"])
async def renewed(state: State, session: AdminWriter, person: _ONE) -> dict[str, Any]:
    """A new token; the old one, and every session begun with it, ends."""
    made = await state.write(partial(annotators.renew_token, key=state.box.key, person=person))
    state.forget()
    return {"person": person, "token": made}


@router.patch("/api/polls/{poll}", tags=["admin"])
async def poll_changed(state: State, session: AdminWriter, poll: _ONE, given: PollChange) -> dict[str, Any]:
    what = given.model_dump(exclude_unset=True)
    what = {name: value for name, value in what.items() if value is not None or name == "quota"}
    found = await state.write(partial(polls.change_poll, poll=poll, **what))
    state.forget()
    return asdict(found)


def _person_json(person: Person) -> dict[str, Any]:
    return asdict(person)
