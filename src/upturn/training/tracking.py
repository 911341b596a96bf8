"""Loss curves to a tracker that ``accelerate`` knows, beside the store; the store alone is the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upturn.errors import UserError

Log = Callable[[Mapping[str, float], int], None]


@contextmanager
def tracking(kind: str | None, folder: Path, name: str) -> Iterator[Log]:
    """Gives the function that logs one training's curve under ``name``; one that does nothing without a tracker.

    Raises UserError where the tracker is not installed.
    """
    if kind is None:
        yield lambda values, step: None
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers ask it which process is the main one
    cls: Any = LOGGER_TYPE_TO_CLASS[kind]
    where = {"logging_dir": str(folder / "tracking")} if cls.requires_logging_directory else {}
    try:
        tracker = cls(name, **where)
        tracker.start()
    except ImportError as error:
        raise UserError(
            f"'{kind}' is not installed: {error}", where="tracker", fix=f"pip install {kind}, or remove the key."
        ) from error
    try:
        yield lambda values, step: tracker.log(dict(values), step=step)
    finally:
        tracker.finish()
