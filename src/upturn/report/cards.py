"""Cards: a small chart with its title, its meaning and notes."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Card:
    """``direction`` says which side is better; ``gated``: the gate decides by this metric."""

    title: str
    meaning: str
    direction: str
    figure: Markup
    notes: tuple[str, ...] = ()
    gated: bool = False


def direction(better: str) -> str:
    """``higher is better``, ``lower is better``, or nothing."""
    return f"{better} is better" if better in ("higher", "lower") else ""
