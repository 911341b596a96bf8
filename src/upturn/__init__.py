"""Train generative models in rounds, and keep only the rounds that make them better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upturn.runs.status import RunStatus

__all__ = ["open_run", "run"]


def run(
    recipe: str | Path, *, settings: Sequence[str] = (), name: str | None = None, runs: str | Path = "runs"
) -> RunStatus:
    """Run a recipe, or go on with its run, and return what came of it.

    ``settings`` are ``a.b=value``. Raises ``upturn.errors.UserError`` for bad input, ``RunError`` for a failed run.
    """
    from upturn.config import recipe as recipes
    from upturn.loop import loop
    from upturn.runs import status

    asked = recipes.load(Path(recipe), settings)
    if name is not None:
        asked = recipes.renamed(asked, name)
    return status.read(loop.run(asked, Path(runs)))


def open_run(folder: str | Path) -> RunStatus:
    """What came of a run that exists."""
    from upturn.runs import status
    from upturn.store.run import Run

    return status.read(Run.open(Path(folder)))
