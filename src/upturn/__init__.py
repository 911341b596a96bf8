"""Train generative models in rounds, and keep only the rounds that make them better.

The Python API: :func:`forecast` predicts cost and stability of a recipe, :func:`run` runs or resumes it, and
:func:`open_run` reads a run directory.
Components are written against ``upturn.protocols`` and ``upturn.types``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upturn.errors import RunError, UserError

if TYPE_CHECKING:
    from upturn.config.recipe import Recipe
    from upturn.observer import Observer
    from upturn.plan.result import Plan
    from upturn.runs.status import RunStatus

__all__ = ["RunError", "UserError", "forecast", "open_run", "run"]


def forecast(recipe: str | Path, *, settings: Sequence[str] = ()) -> Plan:
    """Forecast time, cost, disk and stability of a recipe. Nothing is trained or written.

    Args:
        recipe: a YAML file.
        settings: changes of single keys, as ``"a.b=value"``.

    Raises:
        UserError: the recipe is invalid; the message names file, line and key.

    Example:
        >>> import upturn
        >>> expected = upturn.forecast("recipe.yaml")
        >>> expected.seconds > 0
        True
    """
    from upturn.plan import plan

    return plan(_recipe(recipe, settings, None))


def run(
    recipe: str | Path,
    *,
    settings: Sequence[str] = (),
    name: str | None = None,
    runs: str | Path = "runs",
    observer: Observer | None = None,
) -> RunStatus:
    """Run a recipe, or resume its run from the last finished step.

    Args:
        recipe: a YAML file.
        settings: changes of single keys, as ``"a.b=value"``.
        name: the run's name; the recipe's own by default.
        runs: the folder that holds the runs.
        observer: receives progress; prints nothing by default.

    Returns:
        The status of the run: state, recipe, and for each round the metrics, the gate's decision and the cost.

    Raises:
        UserError: the recipe is invalid; nothing was computed.
        RunError: the run failed; every finished step is kept.

    Example:
        >>> import upturn
        >>> status = upturn.run("recipe.yaml", settings=["rounds.count=1"])
        >>> status.state
        'done'
        >>> first, last = status.rounds
        >>> last.gate["decision"]
        'promoted'
        >>> last.metrics["reward"].get("value") > first.metrics["reward"].get("value")
        True
    """
    from upturn.loop import loop
    from upturn.runs import status

    return status.read(loop.run(_recipe(recipe, settings, name), Path(runs), observer))


def open_run(folder: str | Path) -> RunStatus:
    """The status of an existing run.

    Raises:
        UserError: there is no run in this folder.

    Example:
        >>> import upturn
        >>> upturn.open_run("runs/gaussian").incumbent.unit
        'rounds/001'
    """
    from upturn.runs import status
    from upturn.store.run import Run

    return status.read(Run.open(Path(folder)))


def _recipe(path: str | Path, settings: Sequence[str], name: str | None) -> Recipe:
    from upturn.config import recipe as recipes

    found = recipes.load(Path(path), settings)
    return found if name is None else recipes.renamed(found, name)
