"""Images of several sizes in one run: components that cannot take them are refused by name when the recipe is read.

A component that can take them declares ``several_sizes = True``. A metric that reads images only through the recipe's
features declares ``by_features = True``; then the features must be able to take them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.protocols import Source

Named = tuple[str, str, Any]  # its key in the recipe, its name there, the component


def several(source: Source, name: str, settings: Iterable[tuple[str, Any]]) -> str:
    """Why this run has images of several sizes: the data, or settings with a size; empty where it has not."""
    if source.several_sizes:
        return f"the data '{name}' has images of several sizes (buckets)"
    for where, sampling in settings:
        if sampling is not None and sampling.width is not None:
            return f"{where} sets an image size of its own"
    return ""


def refuse(why: str, parts: Iterable[Named], metrics: Iterable[Named], features: Named) -> None:
    """Raises UserError naming the first component that takes images of one size only, and why there are others."""
    looked: list[Named] = []
    for metric in metrics:
        if metric[2].by_features:
            looked.append(features)
        else:
            looked.append(metric)
    for where, name, part in (*parts, *looked):
        if not (part is not None and part.several_sizes):
            raise UserError(
                f"'{name}' takes images of one size, and {why}", where=where,
                fix="Leave one of the two out; docs/guides/text-to-image.md says what takes several sizes.",
            )


def refuse_unrelated(why: str, objectives: Iterable[Named]) -> None:
    """Raises UserError for an objective that puts one example's content beside another's: two sizes in one group."""
    for where, name, objective in objectives:
        if objective.unrelated:
            raise UserError(
                f"the objective '{name}' compares an image with that of another example, and {why}", where=where,
                fix="Use another objective, or images of one size.",
            )
