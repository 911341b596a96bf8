"""Continues a run in a process of its own once all votes of a round are there; the page stays up."""

from __future__ import annotations

import subprocess
import sys
import threading

from upturn.annotation.db.ballots import BallotBox
from upturn.annotation.poll import answered
from upturn.config.schema import People
from upturn.errors import UserError
from upturn.store.run import Run
from upturn.store.units import unit_round

_LOOK = 0.5  # seconds between two looks at the quota
_WAITS = 3  # exit code of a run that waits for people


class RunContinuation:
    """``words`` describes what the run does, for annotators who have no task."""

    def __init__(self, run: Run, box: BallotBox, people: People) -> None:
        self._run, self._box, self._people = run, box, people
        self._end = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._watch, name="continuation", daemon=True)
        self.words = ""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Look no more; a run that goes on is left to end by itself: what it finishes is kept."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_LOOK):
            try:
                self._look()
            except UserError as error:  # a database that is away comes back
                print(f"upturn: {error}", file=sys.stderr, flush=True)

    def _look(self) -> None:
        if self._child is not None:
            code = self._child.poll()
            if code is not None:
                self._child = None
                self.words = {0: "All rounds are done.", _WAITS: ""}.get(code, "The run has stopped with an error.")
            return
        if self._run.state.state != "waiting":
            return
        unit = answered(self._box, self._people, self._run)
        if unit is not None:
            self.words = f"Round {unit_round(unit)} is training on the votes."
            # of a session of its own: Ctrl C is for the page
            self._child = subprocess.Popen(_command(self._run), start_new_session=True)


def _command(run: Run) -> list[str]:
    folder = run.folder.resolve()
    return [sys.executable, "-c", "from upturn.cli import main; main()", "run", str(folder / "recipe.yaml"),
            "--runs", str(folder.parent)]
