"""Runs an experiment: stacks of cells, in this process or several; finished chunks are stored and not repeated."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upturn.config import components
from upturn.errors import RunError, UserError
from upturn.lab import experiment_results
from upturn.lab.experiment import Experiment
from upturn.lab.stored_stacks import Shard
from upturn.observer import Observer
from upturn.store import files
from upturn.store.lock import Lock

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_POLL = 0.2  # seconds between two reads of the processes' messages


def make(name: str, settings: Mapping[str, Any]) -> Experiment:
    """An experiment by name, or "package.module:Class"; its settings as text or values, every type checked.

    Raises UserError naming the setting, or if the settings span no cell.
    """
    experiment: Experiment = components.make("experiment", {"name": name, **settings}, f"lab {name}")
    if not experiment.cells():
        raise UserError(
            "these settings span no cell", where=f"lab {name}", fix="Give each list a value that fits the others.",
        )
    return experiment


def conduct(
    name: str, settings: Mapping[str, Any], folder: Path, observer: Observer | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Run the missing chunks of an experiment and write its table and results into ``folder``; see :mod:`results`.

    ``workers`` processes share the stacks; None takes one for each core if the experiment is ``parallel``.
    Raises UserError for invalid settings, RunError if a stack failed: finished chunks are stored.
    """
    experiment, seen = make(name, settings), observer or Observer()
    if workers is not None and workers < 1:
        raise UserError(f"{workers} is not a number of processes", where="--workers", fix="Give 1 or more.")
    with files.disk_errors(folder):
        files.make_folder(folder)
    lock = Lock(folder)
    lock.acquire()
    try:
        shards = [Shard(folder, experiment, cells) for cells in experiment.stacks()]
        for shard in shards:
            shard.tidy()  # an interruption may leave old states
        pending = [place for place, shard in enumerate(shards) if not shard.done]
        count = workers or (_cores() if experiment.parallel else 1)
        if min(count, len(pending)) > 1:
            _shared(name, settings, folder, pending, shards, min(count, len(pending)), seen)
        else:
            for place in pending:
                shards[place].work(_teller(seen, place, len(shards)))
        return experiment_results.collect(name, experiment, shards, folder)
    finally:
        lock.release()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _teller(seen: Observer, place: int, of: int) -> Any:
    """Reports each chunk to an observer."""
    def say(number: int, seconds: float, note: str) -> None:
        seen.end(f"stack {place + 1} of {of}", f"part {number}", seconds, {"note": note} if note else {})

    return say


def _shared(
    name: str, settings: Mapping[str, Any], folder: Path, pending: list[int], shards: list[Shard], count: int,
    seen: Observer,
) -> None:
    """Processes of one thread each, because the matrices are small and the stacks are many."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    messages: Any = context.SimpleQueue()
    with _one_thread(), ProcessPoolExecutor(count, context, _begin, (messages,)) as pool:
        waiting: set[Future[str]] = {pool.submit(_work, name, dict(settings), folder, place) for place in pending}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
                _relay(messages, seen, len(shards))
                for future in done:
                    failure = future.result()
                    if failure:
                        raise RunError(
                            f"a stack of the experiment failed:\n{failure}", where=str(folder),
                            fix="Finished chunks are stored; the same command resumes.",
                        )
        except BrokenProcessPool as error:
            raise RunError(
                "a process of the experiment was killed, or ran out of memory", where=str(folder),
                fix="Finished chunks are stored; the same command resumes. --workers 1 needs less memory.",
            ) from error
        finally:
            for future in waiting:
                future.cancel()
    _relay(messages, seen, len(shards))


def _relay(messages: Any, seen: Observer, of: int) -> None:
    while not messages.empty():
        place, number, seconds, note = messages.get()
        _teller(seen, place, of)(number, seconds, note)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start inside use one thread for linear algebra."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_messages: Any = None  # in a worker process: the queue of its messages


def _begin(messages: Any) -> None:
    global _messages
    _messages = messages


def _work(name: str, settings: Mapping[str, Any], folder: Path, place: int) -> str:
    """One stack, in a process of its own; returns the error, or an empty string."""
    try:
        experiment = make(name, settings)
        shard = Shard(folder, experiment, experiment.stacks()[place])
        shard.work(lambda number, seconds, note: _messages.put((place, number, seconds, note)))
    except UserError as error:
        return str(error)
    except Exception:
        return traceback.format_exc()
    return ""
