"""Pictures of several sizes in one run: what cannot take them is refused by name when the recipe is read.

A part that can says ``several_sizes = True``; a metric that looks at pictures through the recipe's features alone says
``by_features = True``, and then the features must be able to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from upturn.errors import UserError

Named = tuple[str, str, Any]  # where it stands in the recipe, its name there, the live part


def several(source: Any, name: str, settings: Iterable[tuple[str, Any]]) -> str:
    """Why this run has pictures of several sizes: the data, or settings that ask for a size; empty where it has not."""
    if source.several_sizes:
        return f"the data '{name}' has pictures of several sizes (buckets)"
    for where, asked in settings:
        if asked is not None and asked.width is not None:
            return f"{where} asks for pictures of a size of their own"
    return ""


def refuse(why: str, parts: Iterable[Named], metrics: Iterable[Named], features: Named) -> None:
    """Raises UserError naming the first part that takes pictures of one size alone, and why there are others."""
    looked: list[Named] = []
    for metric in metrics:
        if metric[2].by_features:
            looked.append(features)
        else:
            looked.append(metric)
    for where, name, part in (*parts, *looked):
        if not (part is not None and part.several_sizes):
            raise UserError(
                f"'{name}' takes pictures of one size, and {why}", where=where,
                fix="Leave one of the two out; docs/guides/text-to-image.md says what takes several sizes.",
            )


def refuse_unrelated(why: str, objectives: Iterable[Named]) -> None:
    """Raises UserError for an objective that puts one example's content beside another's: two sizes in one group."""
    for where, name, objective in objectives:
        if objective.unrelated:
            raise UserError(
                f"the objective '{name}' compares a picture with that of another example, and {why}", where=where,
                fix="Use another objective, or pictures of one size.",
            )
