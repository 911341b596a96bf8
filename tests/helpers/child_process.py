"""Runs in child processes that can be killed, forked from a server with all imports loaded."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = [
    "upturn.loop.loop", "upturn.training.trainer", "upturn.store.catalog", "upturn.store.parquet_tables",
    "pyarrow.parquet", "sklearn.datasets",
]
CONTEXT.set_forkserver_preload(_MODULES)


def preload(*modules: str) -> None:
    """Have the server import these, too, where it has not begun: then not every run does so."""
    CONTEXT.set_forkserver_preload([*_MODULES, *modules])


def _run(text: str, runs: str, fault: str) -> None:
    gc.freeze()  # what the server imported stays; a look for garbage would copy all its pages
    os.environ["UPTURN_FAULT"] = fault
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    from upturn.config import recipe
    from upturn.loop import loop

    loop.run(recipe.parse(text, "child.yaml"), Path(runs))
    sys.exit(0)


def start(text: str, runs: Path, fault: str = "") -> ForkServerProcess:
    """A run of the recipe ``text`` in a process of its own; ``exitcode`` is -9 where it was killed."""
    process = CONTEXT.Process(target=_run, args=(text, str(runs), fault))
    process.start()
    return process
