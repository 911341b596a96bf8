"""Opens models that `transformers` saved: a folder first, then the cache of the hub, then the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from upturn.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Found = TypeVar("Found")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars and advice; its errors are raised."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def without_dropout(config: PretrainedConfig, stated: Mapping[str, Any]) -> None:
    """Every rate of dropout that ``stated`` does not name becomes 0."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float) and name not in stated:
            setattr(config, name, 0.0)


def located(folder: str | None, hub: str | None, read: Callable[[str, str, bool], Found]) -> Found:
    """``read(name, where, local)`` of a local folder, or of a name: the hub's cache is used before the network."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise UserError(f"there is no folder '{folder}'", where="model.folder", fix="Give the folder of a model.")
        return read(folder, "model.folder", True)
    try:
        return read(str(hub), "model.hub", True)
    except UserError:
        return read(str(hub), "model.hub", False)
