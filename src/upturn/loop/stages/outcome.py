"""What a stage returns: it is committed, or it waits for something from outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """The stage is committed."""


@dataclass(frozen=True)
class Waiting:
    """The stage needs something from outside, such as votes; ``missing`` says what."""

    missing: str


Outcome = Done | Waiting
