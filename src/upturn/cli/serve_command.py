"""upturn serve: the voting page of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upturn.cli.find_run import find_round, find_run
from upturn.cli.options import RUNS, RunName, RunsFolder
from upturn.cli.serve_links import new_links
from upturn.cli.serve_options import (
    AnnotatorsFile,
    Attributes,
    Candidates,
    Certificate,
    CertificateKey,
    Continue,
    Database,
    Gold,
    GoldShare,
    Host,
    Markdown,
    Modes,
    NewLinks,
    Overlap,
    Port,
    Quota,
    RepeatShare,
    Rounds,
    Unit,
    WithStudio,
)
from upturn.cli.serve_polls import PollOptions, open_polls
from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.config.schema import People
    from upturn.store.run import Run


def serve(
    run: RunName,
    mode: Modes = [],
    rounds: Rounds = [],
    unit: Unit = "",
    candidates: Candidates = 4,
    overlap: Overlap = 1,
    quota: Quota = None,
    attributes: Attributes = [],
    gold: Gold = None,
    gold_share: GoldShare = 0.1,
    repeat_share: RepeatShare = 0.0,
    people: AnnotatorsFile = None,
    link: NewLinks = [],
    studio: WithStudio = True,
    markdown: Markdown = False,
    database: Database = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    certificate: Certificate = None,
    key: CertificateKey = None,
    resume: Continue = False,
    runs: RunsFolder = RUNS,
) -> None:
    """The voting page: annotators pick, compare, rate, rank or edit samples of a run."""
    from upturn.web import installed

    installed()
    from upturn.annotation.content import ContentStore
    from upturn.annotation.db.ballots import open_box
    from upturn.web import server
    from upturn.web.continue_run import RunContinuation
    from upturn.web.server_state import ServerState
    from upturn.web.studio_worker import Studio

    found = find_run(run, runs)
    configured = _annotators(found)
    if resume and configured is None:
        raise UserError("this run does not wait for votes: there is nothing to resume", where="--continue",
                        fix="Leave it out, or add 'people:' to the rounds of a recipe.")
    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key go together")
    polls = PollOptions(
        mode, rounds, unit, candidates, overlap, quota, attributes, gold, gold_share, repeat_share
    )
    contents = ContentStore(found)
    with open_box(found, database or (configured.database if configured else None)) as box:
        public, secure = not server.is_loopback(host), certificate is not None
        links = new_links(box, people, link, public, host)
        # a run with 'people:' opens its own polls, and polls of an earlier call stay open
        open_polls(box, found, contents, polls, default=configured is None and not box.polls(active=True))
        print(box.progress().message())
        listening = server.bound(host, port)
        where = server.address(host, listening.getsockname()[1], secure)
        worker = Studio(found.folder, find_round(found, None), box) if studio and _has_model(found) else None
        state = ServerState(
            found.name, box, contents, worker, "markdown" if markdown else "plain", secure, server.hosts_for(host),
            continuation=RunContinuation(found, box, configured) if resume and configured else None,
        )
        print(f"Listening on {where} ({_reach(public, secure)}). Press Ctrl C to stop; votes are kept.")
        for annotator, token in links:
            print(f"{annotator}: {where}/signin#{token}", flush=True)
        background = [thread for thread in (worker, state.continuation) if thread is not None]
        for thread in background:
            thread.start()
        try:
            server.serve(state, listening, certificate, key)
        finally:
            for thread in reversed(background):
                thread.close()


def _annotators(run: Run) -> People | None:
    """What the run's recipe configures for votes; None where it needs none."""
    try:
        found = run.recipe
    except UserError:
        return None  # of another version: its samples can be voted on all the same
    return found.rounds.people if found.rounds else None


def _has_model(run: Run) -> bool:
    incumbent = run.incumbent()
    return incumbent is not None and (run.unit(incumbent) / "model").is_dir()


def _reach(public: bool, secure: bool) -> str:
    if not public:
        return "this machine only; --host opens it to others"
    return "others can reach it" if secure else "others can reach it, and the connection is not encrypted: " \
        "give --certificate and --key, or put a server with https before it"
