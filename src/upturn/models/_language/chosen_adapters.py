"""Which adapters act on which prompts of a call, in one batch where they are low-rank updates, else one batch each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from upturn.adapter_layers import injection, row_adapters
from upturn.adapter_layers.row_adapters import Chosen, RowAdapters
from upturn.errors import UserError
from upturn.models._language.generate import Decoded, joined
from upturn.types import Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BASE = "base"
_FIX = "A choice is 'base', a name, or names joined by '+'."


def choices(module: PreTrainedModel, stated: Sequence[str], prompts: int) -> list[Chosen] | None:
    """The adapters of each of ``prompts`` prompts: one choice is for all, else each has its own; None where all act.

    Raises UserError where a name is unknown or the number does not fit.
    """
    if not stated:
        return None
    if len(stated) not in (1, prompts):
        raise UserError(
            f"{len(stated)} choices of adapters for {prompts} prompts", where="sampling.adapters",
            fix="Give one for all prompts, or one for each.",
        )
    known = injection.names(module)
    each = [_names(choice, known) for choice in stated]
    return each if len(each) == prompts else each * prompts


def _names(choice: str, known: Sequence[str]) -> Chosen:
    if choice == BASE:
        return ()
    names = tuple(choice.split("+"))
    for name in names:
        if name not in known:
            there = f"It has {', '.join(known)}. " if known else "It has none. "
            raise UserError(f"the model has no adapter '{name}'", where="sampling.adapters", fix=f"{there}{_FIX}")
    return names


def distinct(read: list[list[int]], which: Array, of: Sequence[Chosen]) -> tuple[list[list[int]], Array, list[Chosen]]:
    """The prompts read once for each choice that they come with: tokens, each prompt's place in them, and choices."""
    kinds = list(dict.fromkeys(of))
    pairs = np.stack([which, np.array([kinds.index(chosen) for chosen in of])], axis=1)
    different, places = np.unique(pairs, axis=0, return_inverse=True)
    return [read[prompt] for prompt, _ in different], places.reshape(-1), [kinds[kind] for _, kind in different]


def decode_chosen(
    module: PreTrainedModel, of: Array, chosen: Sequence[Chosen], decode: Callable[[Array, RowAdapters | None], Decoded]
) -> Decoded:
    """``decode`` of all rows at once, or of each choice's rows alone.

    of      (N,) the place of each row in ``chosen``
    decode  gets the numbers of its rows, and what gives each row of a batch its adapters
    """
    used = sorted({name for names in chosen for name in names})
    if row_adapters.fits(module, used):
        with row_adapters.rows_of(module, chosen) as rows:
            return decode(np.arange(len(of)), rows)
    parts, order = [], []
    for names in dict.fromkeys(chosen):
        mine = np.flatnonzero([chosen[place] == names for place in of])
        with row_adapters.only(module, names):
            parts.append(decode(mine, None))
        order.append(mine)
    return joined(parts, np.argsort(np.concatenate(order)))
