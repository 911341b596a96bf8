"""The studio's worker: a process of its own samples from the model, so that voting never waits for it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from upturn.annotation.db.ballots import BallotBox
from upturn.annotation.db.studio import StudioSample, finish, next_request
from upturn.errors import UserError

COUNT = 4  # made for a prompt
_LOOK = 0.5  # seconds between two looks at a queue that another server may have filled
_NICE = 10  # of the worker: votes come first
Ready = tuple[bool, tuple[str, ...]]  # whether the model reads a prompt, and the classes that may be asked for


class Studio:
    """Takes requests from the queue in the database, one after the other; ``unit`` is whose model makes them."""

    def __init__(self, folder: Path, unit: str, box: BallotBox) -> None:
        self._folder, self._unit, self._box = folder, unit, box
        self._wake, self._end = threading.Event(), threading.Event()
        self._process: Any = None
        self._pipe: Any = None
        self._thread = threading.Thread(target=self._work, name="studio", daemon=True)
        self.ready: Ready | None = None
        self.trouble = ""

    @property
    def unit(self) -> str:
        return self._unit

    def start(self) -> None:
        self._box.requeue()
        self._thread.start()

    def wake(self) -> None:
        """There is something in the queue."""
        self._wake.set()

    def close(self) -> None:
        """End the worker, whatever it is making; that goes back into the queue at the next start."""
        self._end.set()
        self._wake.set()
        self._stop()
        if self._thread.is_alive():
            self._thread.join(10)

    def _work(self) -> None:
        while not self._end.is_set():
            if self._process is None and not self._begin():
                self._end.wait(10 * _LOOK)  # the model could not be read: perhaps it can later
                continue
            asked = self._box.submit(next_request).result()
            if asked is None:
                self._wake.wait(_LOOK)
                self._wake.clear()
                continue
            self._make(*asked)

    def _begin(self) -> bool:
        """Start the worker and wait until it has read the model."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(str(self._folder), self._unit, theirs), daemon=True)
        self._process.start()
        theirs.close()
        try:
            kind, said = self._pipe.recv()
        except (EOFError, OSError):
            kind, said = "trouble", "the worker ended"
        if kind == "ready":
            self.ready, self.trouble = said, ""
            return True
        self.trouble = said
        self._stop()
        return False

    def _make(self, name: str, prompt: str) -> None:
        found: Sequence[StudioSample] = ()
        message = ""
        try:
            self._pipe.send((name, prompt))
            kind, said = self._pipe.recv()
            found, message = (said, "") if kind == "made" else ((), said)
        except (EOFError, OSError):
            if self._end.is_set():
                return
            message = "the worker ended while it was making this; ask again"
            self._stop()
        self._box.submit(partial(finish, name=name, found=found, message=message)).result()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
        if self._pipe is not None:
            self._pipe.close()


def work(folder: str, unit: str, pipe: Connection) -> None:
    """The worker: reads the model once, then answers (request, prompt) with what it made."""
    os.nice(_NICE)
    try:
        from upturn.runs.new_samples import Drawer
        from upturn.store.run import Run

        drawer = Drawer(Run.open(folder), unit)
        pipe.send(("ready", (drawer.conditional, drawer.choices)))
    except UserError as error:
        pipe.send(("trouble", error.what))
        return
    except Exception as error:
        pipe.send(("trouble", f"the model cannot be read ({type(error).__name__})"))
        return
    while True:
        try:
            name, prompt = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send(("made", _drawn(drawer, name, prompt)))
        except UserError as error:
            pipe.send(("failed", error.what))
        except Exception as error:  # a message without details: they may name files of the server
            pipe.send(("failed", f"the model could not make this ({type(error).__name__})"))


def _drawn(drawer: Any, name: str, prompt: str) -> list[StudioSample]:
    from upturn.annotation.content import encoded_content

    samples = drawer.draw([prompt] if drawer.conditional else [], COUNT, int(name[:12], 16))
    every = zip(samples, encoded_content(samples), strict=True)
    return [StudioSample(place, sample.id, kind, body) for place, (sample, (kind, body)) in enumerate(every)]
