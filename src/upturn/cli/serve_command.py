"""serve: the voting page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.find_run import find_round, find_run
from upturn.cli.options import RUNS, RunName, RunsFolder
from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.annotation.content import ContentStore
    from upturn.annotation.db.ballots import BallotBox
    from upturn.annotation.tasks import Question
    from upturn.config.schema import People
    from upturn.store.run import Run

_SOLE = "you"  # who votes where nobody was named


def serve(
    run: RunName,
    mode: Annotated[
        list[str], typer.Option("--mode", help="A vote mode, such as pick ('upturn list vote_mode'); several "
                                "are possible. Absent: those of the polls that are open, else pick.")
    ] = [],
    rounds: Annotated[
        list[int], typer.Option("--round", help="Whose samples; several: their evaluations side by side. "
                                "Absent: the newest that has samples.")
    ] = [],
    unit: Annotated[str, typer.Option("--unit", help="Any unit with samples, such as rounds/001, instead.")] = "",
    candidates: Annotated[int, typer.Option("--candidates", help="At a time, for pick and rank.")] = 4,
    overlap: Annotated[int, typer.Option("--overlap", min=1, help="How many people answer each task.")] = 1,
    quota: Annotated[int | None, typer.Option("--quota", min=0, help="Answers in all; else overlap x tasks.")] = None,
    attributes: Annotated[
        list[str], typer.Option("--attribute", help="What a rating is about; several are possible.")
    ] = [],
    gold: Annotated[
        Path | None, typer.Option("--gold", metavar="FILE", help="JSON lines: {candidates: [ids], right: id}.")
    ] = None,
    golds: Annotated[float, typer.Option("--gold-share", help="Share of tasks from --gold.")] = 0.1,
    repeats: Annotated[float, typer.Option("--repeat-share", help="Share of tasks asked a second time.")] = 0.0,
    people: Annotated[
        Path | None, typer.Option("--people", metavar="FILE", help="YAML or CSV: name, role, team, quota. New ones "
                                  "get a link, which is printed once.")
    ] = None,
    link: Annotated[list[str], typer.Option("--new-link", metavar="NAME", help="A new link for somebody.")] = [],
    studio: Annotated[bool, typer.Option("--studio/--no-studio", help="Whether people may ask the model.")] = True,
    markdown: Annotated[bool, typer.Option("--markdown", help="Show texts as markdown, not as they are.")] = False,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="A Postgres of the team's; else votes.db in the "
                                 "run's folder.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Who can reach it; else this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    certificate: Annotated[Path | None, typer.Option("--certificate", metavar="FILE", help="PEM, for https.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="PEM, of the certificate.")] = None,
    goes_on: Annotated[
        bool, typer.Option("--continue", help="Go on with the run when all answers are there.")
    ] = False,
    runs: RunsFolder = RUNS,
) -> None:
    """The voting page: people pick, compare, rate, rank or edit what a run has made."""
    from upturn.web import installed

    installed()
    from upturn.annotation.content import ContentStore
    from upturn.annotation.db.ballots import open_box
    from upturn.annotation.tasks import Question
    from upturn.web import server
    from upturn.web.continue_run import RunContinuation
    from upturn.web.server_state import ServerState
    from upturn.web.studio_worker import Studio

    found = find_run(run, runs)
    people_asked = _asked_by(found)
    if goes_on and people_asked is None:
        raise UserError("this run asks nobody: there is nothing to go on with", where="--continue",
                        fix="Leave it out, or write 'people:' into the rounds of a recipe.")
    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key go together")
    contents = ContentStore(found)
    with open_box(found, database or (people_asked.database if people_asked else None)) as box:
        public = not server.is_loopback(host)
        links = _links(box, people, link, public, host)
        numbers = (candidates, overlap, quota, repeats) != (4, 1, None, 0.0)
        said = bool(rounds or unit or gold or attributes or numbers)
        unasked = people_asked is None and not box.polls(active=True)  # else the run asks for itself
        for name in mode or (["pick"] if said or unasked else []):
            question = Question(
                name, tuple(rounds), candidates, overlap, quota, tuple(attributes) or ("overall",),
                golds if gold is not None else 0.0, repeats, unit=unit,
            )
            _ask(box, found, contents, question, gold)
        print(box.progress().message())
        listening = server.bound(host, port)
        where = server.address(host, listening.getsockname()[1], certificate is not None)
        worker = Studio(found.folder, find_round(found, None), box) if studio and _has_model(found) else None
        state = ServerState(
            found.name, box, contents, worker, "markdown" if markdown else "plain", certificate is not None,
            server.hosts_for(host),
            continuation=RunContinuation(found, box, people_asked) if goes_on and people_asked else None,
        )
        print(f"Listening on {where} ({_reach(public, certificate is not None)}). Ctrl C ends it; votes are kept.")
        for person, token in links:
            print(f"{person}: {where}/signin#{token}", flush=True)
        if worker is not None:
            worker.start()
        if state.continuation is not None:
            state.continuation.start()
        try:
            server.serve(state, listening, certificate, key)
        finally:
            if state.continuation is not None:
                state.continuation.close()
            if worker is not None:
                worker.close()


def _ask(box: BallotBox, run: Run, contents: ContentStore, question: Question, gold: Path | None) -> None:
    """Open a poll of it, and print what cannot be asked."""
    from upturn.annotation.tasks import tasks_of

    asked = tasks_of(run, contents, question, gold)
    box.open_poll(
        asked.unit, question.mode, asked.tasks, overlap=question.overlap, quota=question.quota,
        attributes=question.attributes, golds=question.golds, repeats=question.repeats,
    )
    for why, count in asked.left_out.items():
        print(f"left out: {count}, {why}")


def _links(box: BallotBox, path: Path | None, renewed: list[str], public: bool, host: str) -> list[tuple[str, str]]:
    """Names and new tokens. UserError for a public address where nobody has one."""
    from upturn.web.annotators_file import people_in

    fresh = [(person.name, token) for person, token in box.add_people(people_in(path))] if path is not None else []
    there = {person.name: person.id for person in box.people()}
    for name in renewed:
        if name not in there:
            raise UserError(f"there is no '{name}'", where="--new-link", fix=f"There: {', '.join(there) or 'nobody'}.")
        fresh.append((name, box.new_token(there[name])))
    if public and set(there) <= {_SOLE}:
        raise UserError(
            f"{host} can be reached by others, and nobody has an access token", where="--host",
            fix="Name who may vote with --people FILE, or leave --host out.",
        )
    if not there:
        fresh.append((_SOLE, box.add_person(_SOLE, "admin")[1]))
    elif set(there) == {_SOLE} and not fresh:
        fresh.append((_SOLE, box.new_token(there[_SOLE])))
    return fresh


def _asked_by(run: Run) -> People | None:
    """What the run's recipe asks of people; None where it asks nothing."""
    from upturn.config import recipe as recipes

    try:
        found = recipes.parse(run.recipe_text, str(run.folder / "recipe.yaml"))
    except UserError:
        return None  # of another version: the page can show its samples all the same
    return found.rounds.people if found.rounds else None


def _has_model(run: Run) -> bool:
    """Whether there is a model to ask."""
    incumbent = run.incumbent()
    return incumbent is not None and (run.unit(incumbent) / "model").is_dir()


def _reach(public: bool, secure: bool) -> str:
    if not public:
        return "this machine only; --host opens it to others"
    return "others can reach it" if secure else "others can reach it, and what is sent can be read on the way: " \
        "give --certificate and --key, or put a server with https before it"
