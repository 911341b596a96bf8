"""Recipes that come with upturn: commented starters for kinds of data and for jobs, and the repository's recipes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from upturn.errors import UserError

_HERE = Path(__file__).parent
_STARTERS = _HERE / "templates"
_IN_WHEEL = _HERE / "shipped_recipes"  # pyproject.toml maps the repository's recipes/ to it
_IN_CHECKOUT = _HERE.parents[2] / "recipes"
JOBS = ("sft", "dpo", "reward-model", "rejection-sampling-dpo", "rloo", "grpo", "ppo")
"""Recipes of jobs on a pre-trained model of the user's, in the order in which people do them."""


def recipe_names() -> list[str]:
    """The repository's recipes, such as ``digits``."""
    return _names(_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT)


def starter(name: str) -> str:
    """The text of a starter: one for a kind of data, or the recipe of a job, such as ``dpo``.

    UserError naming those that exist where there is none of this name.
    """
    recipes = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT
    return _read(recipes if name in JOBS else _STARTERS, name, "starter", "--for", JOBS)


def recipe(name: str) -> str:
    """The text of one of the repository's recipes. UserError naming them where there is none of this name."""
    return _read(_IN_WHEEL if _IN_WHEEL.is_dir() else _IN_CHECKOUT, name, "shipped recipe", "--from")


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _read(folder: Path, name: str, what: str, where: str, more: Sequence[str] = ()) -> str:
    known = [*dict.fromkeys((*_names(folder), *more))]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise UserError(f"there is no {what} '{name}'", where=where, fix=f"{hint}One of: {', '.join(known)}.")
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")
