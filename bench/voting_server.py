"""A voting server in a child process, for the benchmarks: RUN OVERLAP [PORT [DATABASE]]; serves until killed."""

from __future__ import annotations

import sys
from pathlib import Path

from common import ROOT  # it puts tests/ on the path

from helpers.voting_server_cases import FREE, voting_state
from upturn.annotation.tasks import Question
from upturn.store.run import Run
from upturn.web import server

assert ROOT.is_dir()


def main(folder: str, overlap: str, port: str = "0", database: str = "") -> None:
    question = Question("pick", overlap=int(overlap))
    with voting_state(Run.open(Path(folder)), question, rates=FREE, url=database or None) as state:
        listening = server.bound("127.0.0.1", int(port))
        print(f"ADDRESS http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        server.serve(state, listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
