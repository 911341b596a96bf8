"""The data, loaded in another process while this one imports: threads would share one lock."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Splits


class Loading:
    """``splits()`` waits for what a source gives; ``seconds`` is then how long the source took, not the wait."""

    def __init__(self, source: Source, answers: Connection | None) -> None:
        self.source, self.answers, self.seconds = source, answers, 0.0

    def splits(self) -> Splits:
        """Raises UserError as the source does."""
        found, self.seconds = self._received() or _timed(self.source)
        if isinstance(found, tuple):
            what, where, fix = found
            raise UserError(what, where=where, fix=fix)
        return found

    def _received(self) -> tuple[Splits | tuple[str, str, str], float] | None:
        """None where the other process has no result: then the data are loaded here, and errors are raised here."""
        if self.answers is None:
            return None
        try:
            answer: tuple[Splits | tuple[str, str, str], float] | None = self.answers.recv()
        except EOFError:
            return None
        return answer


@contextmanager
def loading(source: Source) -> Iterator[Loading]:
    """Begins at once, where a process can be forked safely: on Linux, before torch and its threads are there."""
    if sys.platform != "linux" or "torch" in sys.modules:
        yield Loading(source, None)
        return
    forked = multiprocessing.get_context("fork")
    answers, out = forked.Pipe(duplex=False)
    process = forked.Process(target=_load, args=(source, out), daemon=True)
    process.start()
    out.close()
    try:
        yield Loading(source, answers)
    finally:
        answers.close()
        process.terminate()  # it is not needed where the recipe was refused
        process.join()


def _load(source: Source, out: Connection) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        out.send(_timed(source))
    except Exception:  # the parent has no answer then, tries for itself, and meets the same fault
        out.close()


def _end_with_the_parent() -> None:
    """A killed parent does not end its children, and some sources take long."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _timed(source: Source) -> tuple[Splits | tuple[str, str, str], float]:
    """What a source gives, or its refusal as what, where and fix; and the seconds that took."""
    began = time.perf_counter()
    found: Splits | tuple[str, str, str]
    try:
        found = source.load()
    except UserError as error:
        found = (error.what, error.where, error.fix)
    return found, time.perf_counter() - began
