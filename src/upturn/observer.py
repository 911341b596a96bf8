"""Progress callbacks of a run; the command line prints them, and by default they do nothing."""

from __future__ import annotations

from typing import Any


class Observer:
    """Receives progress. Override any method; none may raise."""

    def begin(self, unit: str, step: str) -> None:
        """A step of a unit starts."""

    def advance(self, done: int, total: int, text: str = "") -> None:
        """Progress within the step: ``done`` of ``total``."""

    def end(self, unit: str, step: str, seconds: float, info: dict[str, Any]) -> None:
        """The step is committed."""

    def skip(self, unit: str, step: str) -> None:
        """The step was finished by an earlier call."""

    def note(self, text: str) -> None:
        """A message for the user, such as skipped rows or truncated texts."""
