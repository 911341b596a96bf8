"""One thread that writes: waiting jobs share a transaction, and each gets its result after the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from upturn.annotation.db.engine import only_writer
from upturn.annotation.db.validation import Refused

T = TypeVar("T")
_MOST = 64  # jobs in one transaction: their answers wait for each other


@dataclass(frozen=True)
class _Job:
    act: Callable[[Connection], Any]
    result: Future[Any]


class Writer:
    """Jobs run in sequence on one connection. A job that raises ``Refused`` must not have written.

    If the database raises, all jobs of that transaction run again, each in its own transaction: a failing job does not
    affect the others.
    """

    def __init__(self, engine: Engine, schema: str) -> None:
        self._engine, self._schema = engine, schema
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="votes", daemon=True)
        self._closed = False
        self._thread.start()

    def submit(self, act: Callable[[Connection], T]) -> Future[T]:
        """The result once it is committed; RuntimeError after ``close``."""
        if self._closed:
            raise RuntimeError("the votes are closed")
        result: Future[T] = Future()
        self._jobs.put(_Job(act, result))
        return result

    def close(self) -> None:
        """Finishes waiting jobs and stops."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, last = [first], False
            while len(batch) < _MOST and not self._jobs.empty():
                job = self._jobs.get()
                if job is None:
                    last = True
                    break
                batch.append(job)
            self._together(batch)
            if last:
                return

    def _together(self, batch: list[_Job]) -> None:
        try:
            done = self._transaction(batch)
        except Exception as error:
            if len(batch) == 1:
                _tell(batch[0], error)
                return
            for job in batch:
                self._together([job])
            return
        for job, result in zip(batch, done, strict=True):
            _tell(job, result)

    def _transaction(self, batch: list[_Job]) -> list[Any]:
        done: list[Any] = []
        with self._engine.begin() as connection:
            only_writer(connection, self._schema)
            for job in batch:
                try:
                    done.append(job.act(connection))
                except Refused as refusal:
                    done.append(refusal)
        return done


def _tell(job: _Job, result: Any) -> None:
    if not job.result.set_running_or_notify_cancel():
        return  # the caller is gone; the committed job stays
    if isinstance(result, Exception):
        job.result.set_exception(result)
    else:
        job.result.set_result(result)
